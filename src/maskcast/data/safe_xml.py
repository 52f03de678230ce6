"""Reads untrusted XML."""

import xml.etree.ElementTree as ET
from pathlib import Path

from maskcast.reading import parsing, read_file


class _NoDoctype(ET.TreeBuilder):
    """Refuses document types, whose entities may refer to other files or expand without limit."""

    def doctype(self, *_: object) -> None:
        raise ET.ParseError("it has a DOCTYPE")


def read_xml(path: Path, what: str, remedy: str) -> ET.Element:
    """Returns the root of an XML file; ``what`` and ``remedy`` are used in errors.

    Raises:
        MaskcastError: it cannot be read, is not XML, or has a document type.
    """
    raw = read_file(path, "file", remedy)
    with parsing(path, f"the XML of {what}", "fix it or export it again"):
        return ET.fromstring(raw, ET.XMLParser(target=_NoDoctype()))  # noqa: S314
