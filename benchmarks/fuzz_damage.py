# SPDX-License-Identifier: Apache-2.0
"""Plans of damage to a file, as Hypothesis strategies, and what they make of its bytes.

A plan is a list of changes, applied one after another. Places are shares of the length, so that a
plan fits whatever the changes before it left.
"""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

# Words at which readers decide something.
WORDS = [
    *(
        b"\0",
        b"\r",
        b"\n",
        b"\n\n",
        b"\t",
        b'"',
        b"'",
        b",",
        b"\\",
        b"#",
        b"<",
        b">",
        b"&",
        b"[",
        b"]",
    ),
    *(b"{", b"}", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff", b"\xc3", b"\xed\xa0\x80"),
    *(b"&#11;", b"&#xd800;", b"<!ENTITY a 'b'>", b"<!DOCTYPE a [", b"]]>", b"<![CDATA[", b"<?xml "),
    *(b"<article>", b"</article>", b"<doc id=", b"</doc>", b"NaN", b"Infinity", b"1e999", b"null"),
    *(b"\\ud800", b"\\u0000", b"-DOCSTART-", b"B-", b"I-", b"O", b"\xe3\x80\x80", b"\xc2\xa0"),
    *(b"\x1f\x8b\x08\x00", b"PK\x03\x04", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PAR1"),
    *(
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\0\0\0\x80",
        b"[UNK]",
        b"##",
        b"../../etc/passwd",
    ),
]
ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1.5, -0.0, 1e308, float("nan")),
    *("", " ", "\0", "\ud800", "../x", "a" * 10_000, "\u200b", "1", "True"),
    *([], {}, [None], [[]], {"": None}, [{}], {"text": None}, [1, "a"]),
]


def plans(others: Sequence[bytes]) -> st.SearchStrategy:
    """Returns the strategy of plans; `others` are files that parts may come from."""
    place = st.floats(0, 1, exclude_max=True)
    length = st.one_of(st.integers(0, 8), st.integers(0, 4096))
    change = st.one_of(
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("set"), place, st.integers(0, 255)),
        st.tuples(st.just("word"), place, st.integers(0, len(WORDS) - 1)),
        st.tuples(st.just("bytes"), place, st.binary(max_size=16)),
        st.tuples(st.just("cut"), place, length),
        st.tuples(st.just("end"), place),
        st.tuples(st.just("double"), place, length, st.integers(1, 50)),
        st.tuples(st.just("move"), place, place, length),
        st.tuples(st.just("splice"), place, st.integers(0, len(others) - 1), place, length),
        st.tuples(st.just("json"), place, st.integers(0, len(ODD_VALUES) - 1)),
    )
    return st.lists(change, min_size=1, max_size=6)


def apply(content: bytes, plan: Sequence[tuple], others: Sequence[bytes]) -> bytes:
    """Returns the content after all changes of a plan, at most some megabytes of it."""
    for name, share, *rest in plan:
        at = int(share * len(content))
        content = _CHANGES[name](content, at, share, rest, others)[: 1 << 22]
    return content


def _double(content, at, rest):
    length, times = rest
    return content[:at] + content[at : at + length] * times + content[at:]


def _move(content, at, rest):
    share, length = rest
    part, left = content[at : at + length], content[:at] + content[at + length :]
    to = int(share * len(left))
    return left[:to] + part + left[to:]


def _splice(content, at, rest, others):
    number, share, length = rest
    other = others[number]
    start = int(share * len(other))
    return content[:at] + other[start : start + length] + content[at:]


def _change_json(content: bytes, share: float, number: int) -> bytes:
    """Returns JSON, or lines of it, with another value in one place; other content as it is."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    lines = [text]
    try:
        values = [json.loads(text)]
    except (ValueError, RecursionError):
        lines = text.split("\n")
        values = []
        for line in lines:
            try:
                values.append(json.loads(line))
            except (ValueError, RecursionError):
                values.append(line)
    places: list[tuple[Any, Any]] = [(values, key) for key in range(len(values))]
    for container, key in places:
        value = container[key]
        if isinstance(value, dict):
            places.extend((value, inner) for inner in list(value)[:50])
        elif isinstance(value, list):
            places.extend((value, inner) for inner in range(min(len(value), 50)))
        if len(places) > 5_000:
            break
    if not places:
        return content
    container, key = places[int(share * len(places))]
    container[key] = ODD_VALUES[number]
    said = [
        value if isinstance(value, str) and len(lines) > 1 else json.dumps(value)
        for value in values
    ]
    return "\n".join(said).encode("utf-8", "surrogatepass")


_CHANGES = {
    "flip": lambda c, at, s, rest, o: (
        c[:at] + bytes([c[at] ^ 1 << rest[0]]) + c[at + 1 :] if c else c
    ),
    "set": lambda c, at, s, rest, o: c[:at] + bytes(rest) + c[at + 1 :],
    "word": lambda c, at, s, rest, o: c[:at] + WORDS[rest[0]] + c[at:],
    "bytes": lambda c, at, s, rest, o: c[:at] + rest[0] + c[at:],
    "cut": lambda c, at, s, rest, o: c[:at] + c[at + rest[0] :],
    "end": lambda c, at, s, rest, o: c[:at],
    "double": lambda c, at, s, rest, o: _double(c, at, rest),
    "move": lambda c, at, s, rest, o: _move(c, at, rest),
    "splice": lambda c, at, s, rest, o: _splice(c, at, rest, o),
    "json": lambda c, at, s, rest, o: _change_json(c, s, rest[0]),
}
