# SPDX-License-Identifier: Apache-2.0
"""Tiny models for tests: sizes, random parameters, rows, and what torch makes of them."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from edad_jax.models.config import BertConfig, ExBertConfig, ExtensionConfig
from edad_jax.models.exbert import ExBert
from edad_jax.types import EncoderOutput, MaskedBatch

GOLDEN = Path(__file__).parent / "golden"


def raw_scores(output: EncoderOutput) -> list[jax.Array]:
    """Returns scores_bhts of each tapped layer: the original's heads, then the extension's."""
    return [
        jnp.concatenate([heads.scores_bhts for heads in layer], axis=1) for layer in output.heads
    ]


def tiny_bert_config(**changes) -> BertConfig:
    """Returns a BERT of two layers; weights far larger than BERT's, so that errors show."""
    sizes = {
        "vocab_size": 61,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 20,
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.2,
    }
    return BertConfig(**(sizes | changes))


def tiny_exbert_config(*, blocks: bool = True, added_words: int = 7, **changes) -> ExBertConfig:
    """Returns a tiny BERT with added words, with or without extension blocks."""
    extension = ExtensionConfig(hidden_size=12, intermediate_size=16, num_attention_heads=3)
    return ExBertConfig(
        base=tiny_bert_config(**changes),
        extension=extension if blocks else None,
        extension_vocab_size=added_words,
    )


def tiny_batch(vocab_size: int, *, rows: int = 3, length: int = 11, seed: int = 0) -> MaskedBatch:
    """Returns rows of different lengths, the first of them full."""
    random = np.random.default_rng(seed)
    lengths_b = length - 2 * np.arange(rows)
    positions_1t = np.arange(length)[None]
    mask_bt = positions_1t < lengths_b[:, None]
    ids_bt = np.where(mask_bt, random.integers(1, vocab_size, (rows, length)), 0)
    return MaskedBatch(
        ids_bt=ids_bt.astype(np.int32),
        segments_bt=((positions_1t >= 4) & mask_bt).astype(np.int32),
        mask_bt=mask_bt,
        masked_positions_bm=np.tile(np.array([[1, 3]], np.int32), (rows, 1)),
        masked_labels_bm=random.integers(1, vocab_size, (rows, 2)).astype(np.int32),
        masked_weights_bm=np.ones((rows, 2), np.float32),
        next_sentence_b=random.integers(0, 2, (rows,)).astype(np.int32),
    )


@functools.lru_cache(maxsize=8)
def _shapes(config):
    batch = tiny_batch(config.vocab_size)
    return jax.eval_shape(ExBert(config, jnp.float32).init, jax.random.key(0), batch)["params"]


def random_params(config: ExBertConfig, seed: int = 0):
    """Returns parameters with no zero and no one in them: biases and norms must be seen too."""
    shapes = _shapes(config)
    random = np.random.default_rng(seed)

    def leaf(path, shape):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + 0.2 * random.standard_normal(shape.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def assert_parity(config, params, outputs):
    """Asserts that our model computes `outputs`, which torch computed.

    Hidden states, scores and MLM logits are compared at real positions only: at padded ones
    nothing is promised, and transformers masks them by another constant.
    """
    model = ExBert(config, jnp.float32)
    layers = tuple(range(config.base.num_hidden_layers))
    ids_bt, segments_bt, mask_bt = (outputs[n] for n in ("ids_bt", "segments_bt", "mask_bt"))

    @jax.jit
    def run(params):
        variables = {"params": params}
        output = model.apply(
            variables, ids_bt, segments_bt, mask_bt, taps=layers, method=model.encode
        )
        positions_bt = jnp.broadcast_to(jnp.arange(ids_bt.shape[1])[None], ids_bt.shape)
        hidden_btd = output.last_hidden_btd
        mlm = model.apply(variables, hidden_btd, positions_bt, method=model.mlm_logits)
        if "nsp_logits_bc" not in outputs:
            return output, mlm, None
        return output, mlm, model.apply(variables, hidden_btd, method=model.nsp_logits)

    output, mlm_logits, nsp_logits = run(params)
    real_bts = mask_bt[:, :, None] & mask_bt[:, None, :]

    def compare(name, ours, where):
        expected = outputs[name]
        if name.startswith("scores"):
            ours, expected = np.moveaxis(ours, 1, -1), np.moveaxis(expected, 1, -1)
        np.testing.assert_allclose(
            np.asarray(ours)[where], expected[where], atol=1e-5, rtol=1e-5, err_msg=name
        )

    compare("hidden_0_btd", output.embedding_btd, mask_bt)
    for layer in layers:
        compare(f"scores_{layer}_bhts", raw_scores(output)[layer], real_bts)
        compare(f"hidden_{layer + 1}_btd", output.hidden_btd[layer], mask_bt)
    compare("mlm_logits_btv", mlm_logits, mask_bt)
    if "nsp_logits_bc" in outputs:
        compare("nsp_logits_bc", nsp_logits, slice(None))


def load_golden(kind):
    """Returns the arrays that torch computed for a golden model."""
    with np.load(GOLDEN / kind / "outputs.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def assert_trees_equal(ours, expected):
    """Asserts equal structure, dtypes and bits."""
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
