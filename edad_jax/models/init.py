# SPDX-License-Identifier: Apache-2.0
"""First parameters: drawn at random, loaded over, counted and checksummed."""

import hashlib
import zlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import WidthProjection
from edad_jax.types import MaskedBatch


def init_params(model: ExBert, seed: Sequence[int], *, gate_bias: float) -> dict:
    """Returns random parameters as BERT's: N(0, initializer_range), biases 0, norm scales 1.

    Args:
      model: teacher or student.
      seed: integers that seed the draw.
      gate_bias: where the extension's gates start. 0 is exBERT's: each block then begins as the
        mean of original and extension, and the extension is random. With 4, the original has
        98% of the mix, and a teacher begins close to the BERT that was loaded.
    """
    params = draw(param_shapes(model), seed, deviation=model.config.base.initializer_range)
    for name, gate in params.get("extension", {}).items():
        if name.startswith("gates_"):
            gate["bias"] = np.full_like(gate["bias"], gate_bias)
    return params


def param_shapes(model: ExBert) -> dict:
    """Returns the shapes of a net's parameters, without making them."""
    return jax.eval_shape(model.init, jax.random.key(0), _example())["params"]


def init_projection(model: WidthProjection, seed: Sequence[int]) -> dict:
    """Returns random parameters of the map from the student's width to the teacher's."""
    example_btd = jnp.zeros((1, 1, model.config.hidden_size))
    return draw(
        jax.eval_shape(model.init, jax.random.key(0), example_btd)["params"],
        seed,
        deviation=model.config.initializer_range,
    )


def draw(shapes: dict, seed: Sequence[int], *, deviation: float) -> dict:
    """Returns float32 numpy arrays of the given shapes.

    Drawn on the host, each from a seed of its own that its path enters: nothing to compile,
    and the same on every device. (`model.init`, jitted, compiles for ten seconds on a CPU.)
    """

    def leaf(path, shape):
        match path[-1].key:
            case "bias":
                return np.zeros(shape.shape, np.float32)
            case "scale":
                return np.ones(shape.shape, np.float32)
        name = zlib.crc32(jax.tree_util.keystr(path).encode())
        generator = np.random.default_rng([*seed, name])
        return generator.standard_normal(shape.shape, np.float32) * np.float32(deviation)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def load_over(params: dict, loaded: Mapping[str, dict]) -> dict:
    """Returns params in which the loaded parts stand in place of the random ones.

    The MLM bias of a checkpoint covers the original words; the added words' part stays as
    it is. Arrays are float32.

    Raises:
      ValueError: where a loaded part has another structure or shape.
    """
    merged = dict(params)
    for part, tree in loaded.items():
        tree = jax.tree.map(lambda x: np.asarray(x, np.float32), tree)
        if part == "mlm":
            bias = np.array(params["mlm"]["bias"])
            bias[: len(tree["bias"])] = tree["bias"]
            tree = tree | {"bias": bias}
        wanted, got = (
            {jax.tree_util.keystr(path): np.shape(x) for path, x in leaves}
            for leaves in (
                jax.tree_util.tree_leaves_with_path(params.get(part, {})),
                jax.tree_util.tree_leaves_with_path(tree),
            )
        )
        if wanted != got:
            wrong = {name for name in wanted | got if wanted.get(name) != got.get(name)}
            raise ValueError(
                f"loaded {part!r} does not fit the model: "
                + "; ".join(
                    f"{name}: got {got.get(name)}, expected {wanted.get(name)}"
                    for name in sorted(wrong)
                )
            )
        merged[part] = tree
    return merged


def begin_added_words(params: dict, pieces: Sequence[Sequence[int]]) -> dict:
    """Returns params whose added words begin as the mean of the base pieces they are made of.

    For little text: the added words stand where the base's pieces stood, and from the paper's
    random vectors they must first be learned. A word without base pieces stays random.

    Args:
      params: of a net with added words.
      pieces: for each added word, ids of base pieces.

    Raises:
      ValueError: another number of words than the table has rows.
    """
    base_vd = params["base"]["embeddings"]["word"]["embedding"]
    added_vd = np.array(params["extension"]["word"]["embedding"])
    if len(pieces) != len(added_vd):
        raise ValueError(f"got the pieces of {len(pieces)} added words, expected {len(added_vd)}")
    for row, ids in enumerate(pieces):
        if ids:
            added_vd[row] = base_vd[list(ids)].mean(axis=0)
    return params | {"extension": params["extension"] | {"word": {"embedding": added_vd}}}


def checksum(params: dict) -> str:
    """Returns the sha256 of a tree of parameters: names, shapes and bits."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def count_parameters(params: dict) -> int:
    """Returns how many numbers a tree of parameters holds."""
    return sum(x.size for x in jax.tree.leaves(params))


def _example():
    one_bt = jnp.ones((1, 2), jnp.int32)
    return MaskedBatch(
        ids_bt=one_bt,
        segments_bt=jnp.zeros_like(one_bt),
        mask_bt=one_bt > 0,
        masked_positions_bm=one_bt[:, :1],
        masked_labels_bm=one_bt[:, :1],
        masked_weights_bm=jnp.ones((1, 1)),
        next_sentence_b=one_bt[:, 0],
    )
