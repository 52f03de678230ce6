"""Reads XML that nobody has vouched for."""

import xml.etree.ElementTree as ET
from pathlib import Path

from maskcast.reading import content_of, parsing


class _NoDoctype(ET.TreeBuilder):
    """Refuses document types, which can define entities that refer to other files or grow without bounds."""

    def doctype(self, *_: object) -> None:
        raise ET.ParseError("it has a DOCTYPE")


def read_xml(path: Path, what: str, remedy: str) -> ET.Element:
    """Returns the root of an XML file of what; the remedy is for one that is not there.

    Raises:
        MaskcastError: it cannot be read, is no XML, or has a document type, which may hide an entity bomb.
    """
    raw = content_of(path, "file", remedy)
    with parsing(path, f"the XML of {what}", "mend it or export it again"):
        return ET.fromstring(raw, ET.XMLParser(target=_NoDoctype()))  # noqa: S314
