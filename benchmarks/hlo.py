# SPDX-License-Identifier: Apache-2.0
"""The text of a compiled program, read: which operations a device runs, on arrays of which size.

Of what XLA prints (HLO, after optimisation and scheduling) this reads what a roofline needs:
computations, operations with operands, shapes and layouts, and what one calls another for.
"""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 8),
    **dict.fromkeys(("s4", "u4"), 4),
    **dict.fromkeys(("s16", "u16", "bf16", "f16"), 16),
    **dict.fromkeys(("s32", "u32", "f32"), 32),
    **dict.fromkeys(("s64", "u64", "f64"), 64),
}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_OPERATION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_SHAPE = re.compile(r"([a-z]+[0-9]*(?:e\d+m\d+\w*)?)\[([\d,]*)\](?:\{([^}]*)\})?")
_SCOPE = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# What is no work of its own: names, pieces and the ends of what was begun before.
_NAMES = {"parameter", "get-tuple-element", "bitcast", "tuple", "constant", "after-all"}
_IN_FAST_MEMORY = "S(1)"  # of a TPU: on the chip, not in HBM


class Shape(NamedTuple):
    """An array's type, dimensions, and how it lies in memory."""

    type: str
    dims: tuple[int, ...]
    layout: str = ""

    @property
    def bytes(self) -> int:
        return math.prod(self.dims) * _BITS[self.type] // 8

    @property
    def tiled_bytes(self) -> int:
        """Returns what it takes in a TPU's HBM, where its tiles are full; 0 if it is not there."""
        if _IN_FAST_MEMORY in self.layout:
            return 0
        order, _, tiles = self.layout.partition(":")
        tile = re.match(r"T\((\d+),(\d+)\)", tiles)
        if not tile or len(self.dims) < 2:
            return self.bytes
        dims = list(self.dims)
        minor = [int(axis) for axis in order.split(",")]
        for axis, side in zip(minor, (int(tile[2]), int(tile[1])), strict=False):
            dims[axis] = -(-dims[axis] // side) * side
        return math.prod(dims) * _BITS[self.type] // 8


class Operation(NamedTuple):
    """One line of a program."""

    name: str
    kind: str  # as HLO calls it: fusion, dot, custom-call
    shapes: tuple[Shape, ...]  # of its results
    operands: tuple[str, ...]  # names, in the same computation
    attributes: str  # what follows the operands
    computation: str
    is_root: bool

    @property
    def scope(self) -> str:
        """Returns the path of scopes that jax gave it, or ""."""
        found = _SCOPE.search(self.attributes)
        return found[1].replace("\\'", "'") if found else ""

    @property
    def is_work(self) -> bool:
        return self.kind not in _NAMES and not self.kind.endswith(("-done", "-update"))

    def attribute(self, name: str) -> str:
        """Returns the text of an attribute up to the next comma or bracket, or ""."""
        found = re.search(rf"\b{name}=%?([^,\s)}}]+)", self.attributes)
        return found[1] if found else ""

    def numbers(self, name: str) -> tuple[int, ...]:
        """Returns the list of numbers of an attribute: name={1,2} or "name":["1","2"]."""
        found = re.search(rf'\b{name}"?[=:][{{\[]([^}}\]]*)', self.attributes)
        return tuple(int(number) for number in re.findall(r"\d+", found[1])) if found else ()


class Module:
    """A compiled program of one device.

    Attributes:
      entry: name of the computation that runs.
      computations: name -> its operations, in the order in which they run.
    """

    def __init__(self, text: str):
        """Reads a program.

        Raises:
          ValueError: the text has no ENTRY computation.
        """
        self.entry = ""
        self.computations: dict[str, list[Operation]] = {}
        current = None
        for line in text.splitlines():
            if current is not None and line.startswith("}"):
                current = None
            elif current is not None:
                if operation := _read(line, current):
                    self.computations[current].append(operation)
            elif match := _COMPUTATION.match(line):
                current = match[2]
                self.computations[current] = []
                self.entry = current if match[1] else self.entry
        if not self.entry:
            raise ValueError("got a text without an ENTRY computation, expected a compiled program")

    @functools.cached_property
    def shapes(self) -> dict[tuple[str, str], tuple[Shape, ...]]:
        """Returns (computation, operation) -> shapes of its results."""
        return {
            (operation.computation, operation.name): operation.shapes
            for operations in self.computations.values()
            for operation in operations
        }

    def operand_shapes(self, operation: Operation) -> list[tuple[Shape, ...]]:
        """Returns the shapes of each operand."""
        return [self.shapes.get((operation.computation, name), ()) for name in operation.operands]

    def run(
        self, computation: str = "", times: int = 1, *, ends: bool = False
    ) -> Iterator[tuple[Operation, int]]:
        """Yields what a device runs, in order, and how often; of branches, the longest.

        Args:
          computation: where it begins; "": the entry.
          times: how often that runs.
          ends: whether to yield the ends of what was started before, which are no work.
        """
        for operation in self.computations[computation or self.entry]:
            match operation.kind:
                case "call" | "async-start":
                    inner = operation.attribute("to_apply") or operation.attribute("calls")
                    yield from self.run(inner, times, ends=ends)
                case "while":
                    trips = _TRIPS.search(operation.attributes)
                    body = operation.attribute("body")
                    count = int(trips[1]) if trips else 1
                    yield from self.run(body, times * count, ends=ends)
                case "conditional":
                    branches = re.search(r"branch_computations=\{([^}]*)\}", operation.attributes)
                    names = re.findall(r"[\w.\-]+", branches[1]) if branches else []
                    names += filter(
                        None, map(operation.attribute, ("true_computation", "false_computation"))
                    )
                    longest = max(names, key=lambda name: len(self.computations[name]))
                    yield from self.run(longest, times, ends=ends)
                case kind if operation.is_work or (ends and kind.endswith("-done")):
                    yield operation, times

    def inside(self, operation: Operation) -> Iterator[Operation]:
        """Yields what an operation is fused of, or itself where it is not fused."""
        called = operation.attribute("calls")
        if operation.kind != "fusion" or called not in self.computations:
            yield operation
            return
        for inner in self.computations[called]:
            yield from self.inside(inner)

    def scope(self, operation: Operation) -> str:
        """Returns the scope of an operation, or of the last in a fusion that has none."""
        if operation.scope:
            return operation.scope
        scopes = [inner.scope for inner in self.inside(operation)]
        return next(filter(None, reversed(scopes)), "")


def read_shapes(text: str) -> tuple[Shape, ...]:
    """Returns the arrays of a type; "(f32[2]{0}, s8[4]{0})" has two."""
    return tuple(
        Shape(name, tuple(int(size) for size in dims.split(",") if size), layout)
        for name, dims, layout in _SHAPE.findall(text)
        if name in _BITS
    )


def _read(line, computation):
    match = _OPERATION.match(line)
    if not match:
        return None
    root, name, result, kind, rest = match.groups()
    depth, end = 1, len(rest)
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            end = place
            break
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
    attributes = rest if kind in ("parameter", "constant") else rest[end + 1 :]
    return Operation(name, kind, read_shapes(result), operands, attributes, computation, bool(root))
