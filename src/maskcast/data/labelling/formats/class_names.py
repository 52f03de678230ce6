"""Maps class names in label files to class ids."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from maskcast.data.labelling.formats.base import IGNORED, ClassList, ImportedFrame, LabelFormat
from maskcast.labels import IGNORE, LabelError
from maskcast.reading import first_few, pluralize
from maskcast.spelling import did_you_mean, suggestion

MAX_CLASSES = 5  # maximum number of classes in a warning


class ClassNames:
    """The classes of a map by name.

    Args:
        classes: names by id.
        form: format of the label files.
        rename: name in the label map by name in the file.
        option: how a user writes a renaming, with placeholders for both names: ``--rename '{}={}'``.
        new: what a user does about a class that the map should have; empty if its classes are fixed.
    """

    def __init__(
        self, classes: Sequence[str], form: LabelFormat, rename: Mapping[str, str], option: str, new: str = ""
    ) -> None:
        self._ids = {name: k for k, name in enumerate(classes)} | {IGNORED: IGNORE}
        self._ids |= {name: IGNORE for name in form.void_classes if name not in self._ids}
        if form.background_class is not None and classes[0] not in form.class_table:
            self._ids[form.background_class] = 0
        self._rename, self._option, self._new, self._seen = rename, option, new, set[str]()
        for file_name, map_name in rename.items():
            if map_name not in self._ids:
                where = option.format(file_name, map_name)
                raise LabelError(f"{where}: no class {map_name!r}; {suggestion(map_name, self._ids)}")

    def id_of(self, name: str, where: str) -> int:
        """Returns the id of a class; `IGNORE` for a class that means "no label".

        Raises:
            LabelError: the map has no such class; the message names the most similar one.
        """
        self._seen.add(name)
        map_name = self._rename.get(name, name)
        if map_name not in self._ids:
            new = f"{self._new}, or " if self._new else ""
            remedy = f"{new}rename it there, or by {self._option.format(name, 'OURS')}"
            raise LabelError(f"{where}: no class {name!r}; {suggestion(map_name, self._ids)}; {remedy}")
        return self._ids[map_name]

    def missing_in(self, class_list: ClassList) -> tuple[str, ...]:
        """Returns the classes, except the background, that a label file does not have, by their ids."""
        drawn = {self._rename.get(name, name) for name in class_list.names}
        return tuple(name for name, k in self._ids.items() if k not in (0, IGNORE) and name not in drawn)

    def unused_renames(self) -> Iterator[str]:
        """Yields a line for each renamed class that ``id_of`` never met, which may be a typing error."""
        for file_name in sorted(self._rename.keys() - self._seen):
            hint = did_you_mean(file_name, self._seen - self._rename.keys())
            option = self._option.format(file_name, self._rename[file_name])
            yield f"{option}: no labelled frame has {file_name!r}{hint}"


class UnknownClasses:
    """Counts the frames of label files that lack classes, which were added later: there these are background.

    Args:
        names: the classes.
    """

    def __init__(self, names: ClassNames) -> None:
        self._names = names
        self._frames: Counter[ClassList] = Counter()

    def add(self, frame: ImportedFrame) -> None:
        """Adds a frame whose labels are used."""
        if frame.class_list is not None:
            self._frames[frame.class_list] += 1

    def warnings(self, folder: Path) -> Iterator[str]:
        """Yields a line for each file that lacks classes; of files that lack the same ones, for the first.

        Args:
            folder: what names of files are relative to.
        """
        lacking: dict[tuple[str, ...], list[ClassList]] = defaultdict(list)
        for class_list in self._frames:
            if missing := self._names.missing_in(class_list):
                lacking[missing].append(class_list)
        for missing, files in lacking.items():
            first = files[0].file
            name = first.relative_to(folder).as_posix() if first.is_relative_to(folder) else first.name
            more = f" and {pluralize(len(files) - 1, 'other label file')}" if len(files) > 1 else ""
            does, pronoun = "do" if more else "does", "their" if len(missing) > 1 else "its"
            shown = first_few(missing, MAX_CLASSES)
            frames = pluralize(sum(self._frames[one] for one in files), "frame")
            yield (
                f"warning: {name}{more} {does} not know {shown}: {pronoun} pixels count as background in "
                f"{frames}; label these again with all classes, or paint the pixels as ignore (docs/labels.md)"
            )
