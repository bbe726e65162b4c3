"""The shape of a text file: what stays when every digit is forgotten.

`scanf` programs, `awk '{print $4}'` and fixed columns all depend on it: labels, their order, blanks, widths, units. A
line's shape has two parts:

    text      the line with each number replaced by `#` and the blanks before it taken out: `MemFree:# kB`
    fields    for each number (blanks before it, digits): `MemFree:          398280 kB` is [(10, 6)]

A `printf` format puts `S` fixed blanks and pads to a width `W`: blanks + digits = S + max(W, digits). The recordings show
the same line with small and large numbers, so they pin S and W down; our line must come from a format that explains all
recorded lines and ours. What is not a number by nature (addresses, masks) is replaced by its length first.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

NUMBER = re.compile(r"( *)(?<![\w.])(-?\d+)(\.\d+)?(?![\w.])")

# What is hexadecimal: its length is its shape.
HEX_FIELDS = (
    re.compile(r"(?<=\t)[0-9a-f]{16}$"),
    re.compile(r"(?<=[\t,])[0-9a-f]{8}(?=,|$)"),
    re.compile(r"\b0x[0-9a-f]+\b"),
)

# What is a name: any name will do.
NAMES = (
    (re.compile(r"^(\d+) \(.*\) [A-Z] "), r"\1 (COMM) STATE "),
    (re.compile(r"^Name:\t.*$"), "Name:\tCOMM"),
    (re.compile(r"^State:\t[A-Z] \(\w+\)$"), "State:\tSTATE"),
)


class Shape(NamedTuple):
    """One line without its digits."""

    text: str
    fields: tuple[tuple[int, int], ...]


def shape(line: str) -> Shape:
    """The shape of one line."""
    for pattern, name in NAMES:
        line = pattern.sub(name, line)
    for pattern in HEX_FIELDS:
        line = pattern.sub(lambda found: f"<hex{len(found[0]) if not found[0].startswith('0x') else ''}>", line)
    found: list[tuple[int, int]] = []

    def forget(match: re.Match[str]) -> str:
        found.append((len(match[1]), len(match[2])))
        return "#" + ("." + "#" * (len(match[3]) - 1) if match[3] else "")

    return Shape(NUMBER.sub(forget, line), tuple(found))


def shapes(text: str) -> list[Shape]:
    """The shape of each line."""
    return [shape(line) for line in text.splitlines()]


def explains(blanks: int, width: int, field: tuple[int, int]) -> bool:
    """Whether `blanks` fixed blanks and `%{width}lu` print this field."""
    lead, digits = field
    return lead + digits == blanks + max(width, digits)


def one_format(fields: Iterable[tuple[int, int]]) -> bool:
    """Whether a single printf format explains all these fields."""
    seen = set(fields)
    widest = max(lead + digits for lead, digits in seen)
    return any(
        all(explains(blanks, width, field) for field in seen)
        for blanks in range(widest + 1)
        for width in range(1, widest + 2)
    )


class Learned:
    """The formats of a family of files, learnt from every recorded line."""

    def __init__(self) -> None:
        self.fields: dict[tuple[str, int], set[tuple[int, int]]] = defaultdict(set)
        self.texts: set[str] = set()

    def learn(self, text: str) -> None:
        for line in shapes(text):
            self.texts.add(line.text)
            for index, field in enumerate(line.fields):
                self.fields[line.text, index].add(field)

    def misfits(self, line: str) -> list[str]:
        """What is wrong with the widths of a line: nothing when a format explains it and every recorded one."""
        mine = shape(line)
        if mine.text not in self.texts:
            return [f"no such line: {line!r}"]
        return [
            f"width of field {index + 1}: {line!r}"
            for index, field in enumerate(mine.fields)
            if not one_format({field, *self.fields[mine.text, index]})
        ]


def differences(ours: str, linux: str, learned: Learned) -> list[str]:
    """How a file differs from the kernel's in shape; empty when byte for byte the same but for digits."""
    found: list[str] = []
    if ours.endswith("\n") != linux.rstrip("\n").join(["", "\n"]).endswith("\n"):
        found.append("the last line has no newline")
    mine, theirs = [s.text for s in shapes(ours)], [s.text for s in shapes(linux.rstrip("\n"))]
    if mine != theirs:
        found += first_difference(mine, theirs)
    for line in ours.splitlines():
        if shape(line).text in learned.texts:
            found += learned.misfits(line)
    return found


def first_difference(mine: list[str], theirs: list[str]) -> list[str]:
    """Where two lists of lines part, and which lines only one has."""
    missing = [line for line in theirs if line not in mine]
    extra = [line for line in mine if line not in theirs]
    if missing or extra:
        return [f"missing {line!r}" for line in missing] + [f"extra {line!r}" for line in extra]
    at = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))
    return [f"order: line {at + 1} is {mine[at : at + 1]}, Linux has {theirs[at : at + 1]}"]


def by_shape(lines: Iterable[str]) -> Mapping[str, list[str]]:
    """Lines under their shape."""
    groups: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        groups[shape(line).text].append(line)
    return groups
