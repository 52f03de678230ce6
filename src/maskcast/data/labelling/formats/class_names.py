"""Maps class names in label files to class ids."""

from collections.abc import Iterator, Mapping, Sequence

from maskcast.data.labelling.formats.base import IGNORED, LabelFormat
from maskcast.labels import IGNORE, LabelError
from maskcast.validation_errors import closest_match


class ClassNames:
    """The classes of a map by name.

    Args:
        classes: names by id.
        form: format of the label files.
        rename: name in the label map by name in the file.
        option: how a user writes a renaming, with placeholders for both names: ``--rename '{}={}'``.
    """

    def __init__(self, classes: Sequence[str], form: LabelFormat, rename: Mapping[str, str], option: str) -> None:
        self._ids = {name: k for k, name in enumerate(classes)} | {IGNORED: IGNORE}
        self._ids |= {name: IGNORE for name in form.void if name not in self._ids}
        if form.unnamed is not None and classes[0] not in form.known:
            self._ids[form.unnamed] = 0
        self._rename, self._option, self._met = rename, option, set[str]()
        for theirs, ours in rename.items():
            if ours not in self._ids:
                raise LabelError(f"{option.format(theirs, ours)}: no class {ours!r}; {self._nearest(ours)}")

    def id_of(self, name: str, where: str) -> int:
        """Returns the id of a class; `IGNORE` for a class that means "no label".

        Raises:
            LabelError: the map has no such class; the message names the most similar one.
        """
        self._met.add(name)
        ours = self._rename.get(name, name)
        if ours not in self._ids:
            remedy = f"rename it there, or by {self._option.format(name, 'OURS')}"
            raise LabelError(f"{where}: no class {name!r}; {self._nearest(ours)}; {remedy}")
        return self._ids[ours]

    def unmet(self) -> Iterator[str]:
        """Yields a line for each renamed class that ``id_of`` never met, which may be a typing error."""
        for theirs in sorted(self._rename.keys() - self._met):
            meant = closest_match(theirs, self._met - self._rename.keys())
            hint = f"; did you mean {meant!r}?" if meant else ""
            yield f"{self._option.format(theirs, self._rename[theirs])}: no labelled frame has {theirs!r}{hint}"

    def _nearest(self, name: str) -> str:
        meant = closest_match(name, self._ids)
        hint = f"did you mean {meant!r}? " if meant else ""
        return f"{hint}the map has {', '.join(self._ids)}"
