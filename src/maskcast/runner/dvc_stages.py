"""The stages of a dvc.yaml: which of ours each calls, under what name, and what it reads and writes."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maskcast.errors import MaskcastError
from maskcast.params import load_params_file
from maskcast.runner.stage import get_stage, stage_names


@dataclass(frozen=True)
class Entry:
    """An entry of dvc.yaml.

    Attributes:
        stage: that it runs.
        name: what the stage goes by: its section of the params file.
        reads: path by port.
        writes: path by port.
    """

    stage: str
    name: str
    reads: Mapping[str, str]
    writes: Mapping[str, str]


def load_entries(path: Path) -> dict[str, Entry]:
    """Returns the entries that run a stage, by their names in the file, each after those that it needs.

    Raises:
        MaskcastError: there is no such file, or it runs no stage.
    """
    content = load_params_file(path, "pipeline of DVC", "run this in the folder of a dvc.yaml")
    found = {}
    for key, given in (content.get("stages") or {}).items():
        _, *words = shlex.split(str((given or {}).get("cmd", ""))) or [""]
        if words and (stage := words[0].replace("-", "_")) in stage_names():
            flags = dict(zip(words[1::2], words[2::2], strict=False))
            paths = {
                way: {
                    p.name: flags[f"--{p.name}"]
                    for p in get_stage(stage).ports
                    if p.direction == way and f"--{p.name}" in flags
                }
                for way in ("in", "out")
            }
            found[key] = Entry(stage, flags.get("--name", stage), paths["in"], paths["out"])
    if not found:
        raise MaskcastError(f"{path}: runs no stage of maskcast; a grid varies one that does")
    ordered: dict[str, Entry] = {}
    needs = needs_of(found)
    while len(ordered) < len(found):
        ready = [key for key in found if key not in ordered and needs[key] <= ordered.keys()]
        if not ready:
            raise MaskcastError(f"{path}: its stages go in a circle; `dvc dag` shows them")
        ordered |= {key: found[key] for key in ready}
    return ordered


def needs_of(entries: Mapping[str, Entry]) -> dict[str, set[str]]:
    """Returns the entries that each reads from."""
    writers = {out: key for key, entry in entries.items() for out in entry.writes.values()}
    return {key: {writers[i] for i in entry.reads.values() if i in writers} for key, entry in entries.items()}
