"""Two people who promote at the same moment."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from maskcast.registry.store import Registry


def promote_at_once(programs: Path, name: str, *environments: Mapping[str, str]) -> int:
    """Promotes version 1 as the first and version 2 as the second of two people; returns who won, 0 or 1.

    One must win, and the other must be told.

    Args:
        programs: the folder of commands that start at once.
        name: the registered model.
        environments: what is in the environment of each of the two besides what is in that of the test.
    """
    processes = [
        subprocess.Popen(
            [programs / "maskcast", "models", "--name", name, "promote", str(version)],
            env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for version, environment in zip((1, 2), environments, strict=True)
    ]
    ended = [process.communicate(timeout=800) for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2], ended
    winner = codes.index(0)
    assert Registry(name).aliases()["champion"] == winner + 1
    told = ended[1 - winner][1]
    assert any(text in told for text in ("was first", "that is not complete", "but the champion is now")), told
    return winner
