"""Reads XML that nobody has vouched for."""

import xml.etree.ElementTree as ET
from pathlib import Path

from maskcast.errors import MaskcastError


class _NoDoctype(ET.TreeBuilder):
    """Refuses document types, which can define entities that refer to other files or grow without bounds."""

    def doctype(self, *_: object) -> None:
        raise ET.ParseError("it has a DOCTYPE")


def read_xml(path: Path, what: str, remedy: str) -> ET.Element:
    """Returns the root of an XML file of what; the remedy is for one that is not there.

    Raises:
        MaskcastError: it cannot be read, is no XML, or has a document type, which may hide an entity bomb.
    """
    try:
        return ET.parse(path, ET.XMLParser(target=_NoDoctype())).getroot()  # noqa: S314
    except OSError as error:
        raise MaskcastError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except (ET.ParseError, LookupError, ValueError) as error:  # the last two: encodings
        raise MaskcastError(f"{path}: not the XML of {what} ({error}); mend it or export it again") from None
