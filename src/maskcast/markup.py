"""HTML and SVG from Python: what is not markup is escaped, so that no class name or clip id becomes any."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence

NUMBER = re.compile(r"[-+]?\d[\d,.]*(e[-+]?\d+)?%?( to \S+)?|n/a|-|")  # what a column of numbers holds
VOID = frozenset({"br", "img", "input", "meta"})  # of those used here: they have no end tag


class Html(str):
    """Markup. Any other text is escaped where it enters an element."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """Returns one element.

    Args:
        name: Of the tag.
        children: Html as it is, anything else as text.
        attributes: Underscores stand for hyphens, ``class_`` for ``class``; True is written without a value,
            False and None are left out.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    end = "" if name in VOID else f"</{name}>"
    return Html(f"<{name}{given}>{joined(children)}{end}")


def joined(children: Iterable[object]) -> Html:
    """Returns children one after the other, escaped unless they are markup."""
    return Html("".join(each if isinstance(each, Html) else html.escape(str(each)) for each in children))


def table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """Returns a table in a frame that scrolls by itself; the first cell of each row is its heading.

    Columns of numbers stand to the right; all others are of the class ``text``.
    """
    content = [[*map(joined, ([cell] for cell in row))] for row in rows]
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
    """Returns a frame for what may be wider than a phone; the keyboard reaches and scrolls it."""
    return element("div", *children, class_="scroll", role="region", aria_label=label, tabindex=0)


def picture(alt: str, caption: str, data: bytes, kind: str = "image/png") -> Html:
    """Returns a wide picture with its caption; on a phone it scrolls, so that its letters stay legible."""
    image = element("img", alt=alt, src=data_uri(data, kind))
    return element("figure", scrolling(alt, image), element("figcaption", caption))


def folded(summary: str, *children: object) -> Html:
    """Returns what a reader unfolds."""
    return element("details", element("summary", summary), *children)


def definition_list(meanings: Mapping[str, str]) -> Html:
    """Returns what names mean, which a reader unfolds."""
    entries = [part for name, text in meanings.items() for part in (element("dt", name), element("dd", text))]
    return folded("Definitions", element("dl", *entries))


def data_uri(data: bytes, kind: str) -> str:
    """Returns a file as the address of itself."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _is_number(cell: Html) -> bool:
    """Says whether a cell holds a number, says that there is none, or shows one without words."""
    return NUMBER.fullmatch(re.sub("<[^>]*>", "", cell)) is not None


def _attribute(key: str, value: object) -> str:
    if value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
