"""Files that somebody, or a disk, has spoiled: one line that names each, within bounds of memory and time."""

import itertools
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.attacks.harm import harms
from tests.attacks.readers import READERS
from tests.attacks.sandbox import Sandbox


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sound")


@pytest.mark.parametrize("name", READERS)
def test_a_spoiled_file_ends_in_one_line(name: str, sound: Path, tmp_path: Path, sandbox: Sandbox) -> None:
    reader, sample, numbers = READERS[name], sound / name.replace(" ", "_"), itertools.count()
    sample.mkdir()
    reader.write(sample)
    found = [sorted(path for path in sample.glob(f"**/{pattern}") if path.is_file()) for pattern in reader.files]
    targets = [path.relative_to(sample) for some in found for path in some]
    first = sandbox.run(name, Path(shutil.copytree(sample, tmp_path / "sound")))
    assert first.ended == "read", first

    @given(st.data())
    def attack(data: st.DataObject) -> None:
        target = data.draw(st.sampled_from(targets))
        harm = data.draw(harms(target.name))
        case = tmp_path / f"case_{next(numbers)}"
        shutil.copytree(sample, case)
        harm(case / target)
        reader.agree(case)
        outcome = sandbox.run(name, case)
        assert outcome.ended in ("read", "refused"), f"{target}: {outcome.ended}\n{outcome.said}"
        shutil.rmtree(case)

    attack()
