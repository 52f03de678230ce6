"""What is done to a file, drawn by Hypothesis: by its kind where it has a form, by its bytes in any case."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Harm = Callable[[Path], object]
DEEP = 3000  # levels
DIGITS = "9" * 5000
# Values that files have in the wrong place; `RAW` ones are written as they stand, for JSON cannot say them otherwise.
RAW = ("9" * 5000, "1e999", "-Infinity", "NaN", "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 255, 200, 2**31, 2**63, 2**64, -(2**63), 10**9, 10**18, 1e308, -1e308, 0.5,
    "", "x", "\ud800", "\x00", "../../x", "/etc/passwd", "x" * 5000, "null", "2001-99-99",
    [], {}, [[]], [None], ["x"], [1e308] * 6, [[1e308] * 8], [0] * 10_000, {"x": 1}, {"": None},
)  # fmt: skip
WORDS = (
    b"-1", b"0", b"255", b"1000000000", b"9" * 30, b"9" * 5000, b"1e308", b"nan", b"-inf", b"2001-99-99", b"0x" + b"f" * 5000,
    b"", b"\x00", b"\xff\xfe", b"\xf0\x9f\x98\x80", b"x" * 5000, b"../../../x", b"%s%n", b"[" * DEEP, b"{a: " * DEEP, b"- " * DEEP,
    b"1:1:1:1:1:1", b"!!python/object:os.system x", b"&a [*a]", b"\xc2\xb2", b"1_000", b"\r", b"\n\n", b"\t", b'"', b"'",
)  # fmt: skip
LAUGHS = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)),
    ]
)
MERGES = "\n".join(
    ["a0: &a0 {k: v}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30))]
)
ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
WHOLE = (
    b"", b"\x00", b"null", b"[]", b"{}", b"0", b'"x"', b"[" * DEEP, b'{"a":' * DEEP, b"\xff\xfe\x00", b"a: [1", b"- x", b"a: 1",
    LAUGHS.encode(), MERGES.encode(), b"a: &a [*a]", b"? {a: 1}\n: 2", b"a: 2001-99-99", b"2001-99-99", b"a: " + DIGITS.encode(),
    b"%YAML 9.9\n---\na", b"a: 1\n---\nb: 2", b"<a/>", b"<a>" * DEEP,
    f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "x">{ENTITIES}]><x>&e11;</x>'.encode(),
    b'<?xml version="1.0" encoding="x-none"?><a/>', b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (",
    b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF89a", b"RIFF", b"II*\x00", b"hsqs",
)  # fmt: skip


def harms(file: str) -> st.SearchStrategy[Harm]:
    """Draws what is done to a file of this name."""
    kinds = [_place(), st.sampled_from(WHOLE).map(_write), _bytes(), _bytes()]
    suffix = Path(file).suffix
    if suffix in (".json", ".jsonl") or "json" in file:
        kinds += [_json(), _json(), _json(), _json()]
    if suffix in (".yaml", ".yml", ".txt", ".xml", ".csv", ".dvc") or file == "MLmodel":
        kinds += [_words(), _words(), _words(), _words()]
    if suffix == ".npy":
        kinds += [_npy(), _npy()]
    return st.one_of(kinds)


def _write(content: bytes) -> Harm:
    def do(path: Path) -> None:
        path.write_bytes(content)

    return do


def _place() -> st.SearchStrategy[Harm]:
    """Something else stands where the file should."""

    def do(what: str) -> Harm:
        def harm(path: Path) -> None:
            path.unlink()
            if what == "folder":
                path.mkdir()
            elif what == "pipe":
                os.mkfifo(path)
            elif what == "loop":
                path.symlink_to(path.name)
            elif what == "endless":
                path.symlink_to("/dev/zero")

        return harm

    return st.sampled_from(["none", "folder", "pipe", "loop", "endless"]).map(do)


def _bytes() -> st.SearchStrategy[Harm]:
    """Cuts a file, or overwrites, removes or repeats some of its bytes, most often near its beginning."""
    at = st.one_of(st.integers(0, 200), st.integers(0, 1 << 20))
    numbers = [struct.pack(f, n) for f in "<>" for n in (0,) for f in (f + "I",)]
    numbers += [struct.pack(f"{order}{kind}", value) for order in "<>" for kind, value in
                (("I", 2**32 - 1), ("I", 2**31 - 1), ("Q", 2**64 - 1), ("Q", 2**62), ("H", 65535), ("d", float("nan")))]  # fmt: skip

    def do(edits: list[tuple[str, int, bytes]]) -> Harm:
        def harm(path: Path) -> None:
            data = bytearray(path.read_bytes())
            for what, place, content in edits:
                start = place % (len(data) + 1)
                if what == "cut":
                    del data[start:]
                elif what == "over":
                    data[start : start + len(content)] = content
                elif what == "drop":
                    del data[start : start + len(content)]
                elif what == "insert":
                    data[start:start] = content
                elif what == "flip" and data:
                    data[place % len(data)] ^= content[0] or 1
            path.write_bytes(data)

        return harm

    edit = st.tuples(
        st.sampled_from(["cut", "over", "over", "drop", "insert", "flip"]),
        at,
        st.one_of(st.sampled_from(numbers), st.binary(min_size=1, max_size=8)),
    )
    return st.lists(edit, min_size=1, max_size=3).map(do)


def _words() -> st.SearchStrategy[Harm]:
    """Puts another word for one of a text."""

    def do(place: int, word: bytes) -> Harm:
        def harm(path: Path) -> None:
            import re

            data = path.read_bytes()
            found = list(re.finditer(rb"[^\s\"<>=:,\[\]{}]+", data))
            if found:
                one = found[place % len(found)]
                data = data[: one.start()] + word + data[one.end() :]
            path.write_bytes(data)

        return harm

    return st.builds(do, st.integers(0, 1000), st.sampled_from(WORDS))


def _json() -> st.SearchStrategy[Harm]:
    """Puts another value somewhere into a JSON file, or takes a value or a key away; of lines into one of them."""

    def do(place: int, what: str, value: Any, raw: str) -> Harm:
        def harm(path: Path) -> None:
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            line = place % len(lines)
            content = json.loads(lines[line])
            places = list(_places(content))
            if not places:
                return
            parent, key = places[place % len(places)]
            if what == "drop":
                del parent[key]
            elif what == "twice" and isinstance(parent, list):
                parent.append(parent[key])
            else:
                parent[key] = "@@" if what == "raw" else value
            lines[line] = json.dumps(content).replace('"@@"', raw)
            path.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))

        return harm

    what = st.sampled_from(["value"] * 5 + ["drop", "twice", "raw"])
    return st.builds(do, st.integers(0, 500), what, st.sampled_from(VALUES), st.sampled_from(RAW))


def _places(content: Any):
    items = (
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    )
    for key, value in list(items):
        yield content, key
        yield from _places(value)


def _npy() -> st.SearchStrategy[Harm]:
    """Puts another type or shape into the head of an array."""
    heads = [
        ("'|O'", "(1,)"), ("'<u8'", "(4, 1152921504606846976)"), ("'|u1'", "(3, -1, 4)"), ("'|u1'", "()"), ("'|S0'", "(9,)"),
        ("'<f8'", "(2, 2)"), ("'|V0'", "(99999999999,)"), ("[('a', '<i4')]", "(1,)"), ("'<M8[D]'", "(1,)"), ("'|u1'", "(0, 0, 0)"),
        ("'|b1'", "(3, 16, 24)"), ("'<i8'", "(1000000000000, 0, 5)"), ("'x'", "(1,)"), ("'|u1'", "(" + "1, " * 70 + ")"),
    ]  # fmt: skip

    def do(head: tuple[str, str]) -> Harm:
        def harm(path: Path) -> None:
            text = (
                f"{{'descr': {head[0]}, 'fortran_order': False, 'shape': {head[1]}, }}".ljust(450).encode() + b"\n"
            )
            path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + path.read_bytes()[128:])

        return harm

    return st.sampled_from(heads).map(do)
