# SPDX-License-Identifier: Apache-2.0
"""All tensors of a net in one array, for what treats them alike: sums over devices and updates.

A net has hundreds of tensors, most of them small. One by one, an optimiser starts a kernel or two
for each, however little it does, and a call hands each over with its moments, to every device: with
what is frozen 1,333 arrays for the paper's nets. In one array it is a handful of kernels, one sum
over devices, and three arrays a net.

Every tensor begins a row of WIDTH numbers; zeros fill its last row. Tensors with equally many rows
lie side by side, so that the norms of all are a few sums over reshaped parts, without a scatter.
"""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Iterator

import flax
import jax
import jax.numpy as jnp
import numpy as np

WIDTH = 1024


@dataclasses.dataclass(frozen=True)
class Packing:
    """Which tensors lie where.

    Attributes:
      paths: of the tensors, by keys, in the order in which they lie.
      shapes: theirs.
    """

    paths: tuple[tuple[str, ...], ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tree: dict) -> "Packing":
        """Returns the packing of a tree of nested dictionaries; shapes are enough."""
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        named = [(tuple(key.key for key in path), tuple(leaf.shape)) for path, leaf in leaves]
        named.sort(key=lambda tensor: _rows(tensor[1]))  # stable
        return cls(*map(tuple, zip(*named, strict=True))) if named else cls((), ())

    @property
    def rows(self) -> tuple[int, ...]:
        """Returns the number of rows of each tensor."""
        return tuple(map(_rows, self.shapes))

    def pack(self, tree: dict) -> "Packed":
        """Returns the tensors of a tree, as float32, in one array; of numpy arrays by numpy."""
        leaves = [functools.reduce(operator.getitem, path, tree) for path in self.paths]
        # Outside of a compiled function, jax would compile small programs for each shape.
        xp = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp

        def in_rows(leaf):
            flat = xp.ravel(leaf).astype(np.float32)
            short = _rows(leaf.shape) * WIDTH - flat.size
            return (xp.pad(flat, (0, short)) if short else flat).reshape(-1, WIDTH)

        empty = xp.zeros((0, WIDTH), np.float32)
        return Packed(jnp.asarray(xp.concatenate([empty, *map(in_rows, leaves)])), self)

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yields first row, number of tensors and rows of each, where these are the same."""
        start = 0
        for rows, group in itertools.groupby(self.rows):
            count = len(list(group))
            yield start, count, rows
            start += count * rows


@flax.struct.dataclass
class Packed:
    """Tensors in one array: a leaf of float32 [rows, WIDTH], and what lies where."""

    rows: jax.Array
    packing: Packing = flax.struct.field(pytree_node=False)

    def unpack(self) -> dict:
        """Returns the tree, of slices."""
        tree, start = {}, 0
        packing = self.packing
        for path, shape, rows in zip(packing.paths, packing.shapes, packing.rows, strict=True):
            leaf = self.rows[start : start + rows].reshape(-1)[: math.prod(shape)].reshape(shape)
            start += rows
            *parents, name = path
            node = tree
            for key in parents:
                node = node.setdefault(key, {})
            node[name] = leaf
        return tree

    def squared_norms(self) -> jax.Array:
        """Returns the sum of squares of each tensor, in the order of the packing."""
        of_rows = jnp.square(self.rows).sum(axis=1)
        parts = [
            of_rows[start : start + count * rows].reshape(count, rows).sum(axis=1)
            for start, count, rows in self.packing.runs()
        ]
        return jnp.concatenate([*parts, jnp.zeros(0)])

    def scale(self, factors: jax.Array | np.ndarray) -> "Packed":
        """Returns each tensor times its factor."""
        of_rows, first = [jnp.zeros(0)], 0
        for _, count, rows in self.packing.runs():
            part = jnp.asarray(factors[first : first + count])
            of_rows.append(jnp.broadcast_to(part[:, None], (count, rows)).reshape(-1))
            first += count
        return self.replace(rows=self.rows * jnp.concatenate(of_rows)[:, None])


def is_packed(node: object) -> bool:
    """Returns whether this is one array for many tensors, and not a tree or a tensor."""
    return isinstance(node, Packed)


def _rows(shape):
    return max(1, -(-math.prod(shape) // WIDTH))
