"""HTML and SVG from Python; text is escaped, so that class names or clip ids cannot inject markup."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence

NUMBER = re.compile(r"[-+]?\d[\d,.]*(e[-+]?\d+)?%?( to \S+)?|n/a|-|")  # text in a numeric column
VOID = frozenset({"br", "img", "input", "meta"})  # elements without end tag


class Html(str):
    """Markup, which is not escaped when it is put into an element; plain text is."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """Returns one element.

    Args:
        name: Name of the tag.
        children: Html is inserted as it is, anything else is escaped.
        attributes: Underscores become hyphens, ``class_`` becomes ``class``; True gives an attribute without
            value, False and None are left out.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    end = "" if name in VOID else f"</{name}>"
    return Html(f"<{name}{given}>{concatenate(children)}{end}")


def concatenate(children: Iterable[object]) -> Html:
    """Returns the concatenated children, escaped unless they are Html."""
    return Html("".join(each if isinstance(each, Html) else html.escape(str(each)) for each in children))


def table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """Returns a table in a scrolling frame; the first cell of each row is its heading.

    Numeric columns are right-aligned; all others get the class ``text``.
    """
    content = [[*map(concatenate, ([cell] for cell in row))] for row in rows]
    text = {n for row in content for n, cell in enumerate(row) if n and not _is_number(cell)}
    kinds = ["text" if n in text else None for n in range(len(header))]
    head = [element("th", cell, scope="col", class_=kind) for cell, kind in zip(header, kinds, strict=True)]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in content
    ]
    whole = element(
        "table", element("caption", caption), element("thead", element("tr", *head)), element("tbody", *body)
    )
    return scrolling(caption, whole)


def scrolling(label: str, *children: object) -> Html:
    """Returns a frame for wide content, which also scrolls by keyboard."""
    return element("div", *children, class_="scroll", role="region", aria_label=label, tabindex=0)


def figure(alt: str, caption: str, data: bytes, kind: str = "image/png") -> Html:
    """Returns a wide picture with its caption; narrow screens scroll it, so that its text stays legible."""
    image = element("img", alt=alt, src=data_uri(data, kind))
    return element("figure", scrolling(alt, image), element("figcaption", caption))


def collapsible(summary: str, *children: object) -> Html:
    """Returns content that is collapsed until a reader opens it."""
    return element("details", element("summary", summary), *children)


def definition_list(meanings: Mapping[str, str]) -> Html:
    """Returns a collapsed list of definitions, by name."""
    entries = [part for name, text in meanings.items() for part in (element("dt", name), element("dd", text))]
    return collapsible("Definitions", element("dl", *entries))


def data_uri(data: bytes, kind: str) -> str:
    """Returns the content of a file as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _is_number(cell: Html) -> bool:
    """Whether a cell contains a number, a placeholder for a missing number, or only graphics."""
    return NUMBER.fullmatch(re.sub("<[^>]*>", "", cell)) is not None


def _attribute(key: str, value: object) -> str:
    if value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
