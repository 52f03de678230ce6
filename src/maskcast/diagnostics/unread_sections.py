"""Sections of a params file that nothing reads: a mistyped name would leave the defaults in place unnoticed."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from maskcast.errors import MaskcastError
from maskcast.installation import git
from maskcast.params import load_params_file
from maskcast.reading import read_yaml
from maskcast.runner.stage import stage_names
from maskcast.spelling import closest_match

ANCHORS = ("x-", ".")  # how names of sections begin that, by convention, only hold anchors of YAML
MISTYPED = 0.8  # similarity (difflib) above which a name is a mistake; train_segmenter and train_masker have 0.67
TEMPLATE = re.compile(r"\$\{(\w+)")  # of DVC, replaced by a value of a params file


class UnreadSections(NamedTuple):
    """Lines about sections of a params file that nothing reads.

    Attributes:
        errors: of names that are like that of a section beside them that is read.
        warnings: of other names.
    """

    errors: list[str]
    warnings: list[str]

    @classmethod
    def of(
        cls, content: Mapping[str, Any], file: Path, read: Collection[str], others: Collection[str] = ()
    ) -> "UnreadSections":
        """Finds sections that the pipeline does not read, no dvc.yaml of the repository names, and no stage has.

        Args:
            content: content of the params file.
            file: its path.
            read: sections that the pipeline reads.
            others: sections that other pipelines read, which may share the file.
        """
        names = [str(name) for name in content if name not in read and name not in others]
        names = [name for name in names if not name.startswith(ANCHORS)]
        tracked = _tracked_sections(file) if names else set()
        errors, warnings = [], []
        for name in names:
            if name in tracked or name in stage_names():  # stages are also run one by one
                continue
            near = closest_match(name, read, MISTYPED)
            if near is None:
                warnings.append(f"{file}: no stage of the pipeline reads section {name!r}; remove it if unused")
            elif near in content:  # else its absence is an error
                errors.append(f"{file}: no stage reads section {name!r}; did you mean {near!r}? else remove it")
        return cls(errors, warnings)


def _tracked_sections(file: Path) -> set[str]:
    """Returns the sections of a params file that commands in the repository's dvc.yaml files read."""
    words = ("-C", str(file.parent), "ls-files", "--cached", "--others", "--exclude-standard", "--")
    names = git(*words, ":(top,glob)**/dvc.yaml").splitlines()
    sections = set[str]()
    for dvc_file in {file.parent / name for name in ("dvc.yaml", *names)}:
        try:
            stages = read_yaml(dvc_file, "dvc.yaml", "")["stages"].values()
            for entry in stages:
                sections |= _tracked_by(entry.get("do", entry), dvc_file.parent, file.resolve())
            sections |= set(TEMPLATE.findall(dvc_file.read_text(encoding="utf-8")))
        except (MaskcastError, AttributeError, KeyError, TypeError):
            continue  # not a valid dvc.yaml, which is reported where it is used
    return sections


def _tracked_by(entry: Mapping[str, Any], folder: Path, file: Path) -> set[str]:
    """Returns the sections of a params file that the `params` of an entry of a dvc.yaml name."""
    sections = set[str]()
    for item in entry.get("params", ()):
        for path, keys in item.items() if isinstance(item, Mapping) else [("params.yaml", [item])]:
            if (folder / entry.get("wdir", ".") / path).resolve() == file:
                sections |= {str(key).partition(".")[0] for key in keys or load_params_file(file)}
    return sections
