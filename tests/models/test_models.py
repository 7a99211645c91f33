# SPDX-License-Identifier: Apache-2.0
"""The models: their sizes, the gate, the taps and the joint vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.models.bert import Bert
from edad_jax.models.config import BertConfig, ExBertConfig, ExtensionConfig
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import WidthProjection
from tests.tiny_models import (
    random_params,
    raw_scores,
    tiny_batch,
    tiny_bert_config,
    tiny_exbert_config,
)

_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
_TINY = {
    "hidden_size": 312,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "intermediate_size": 1200,
}
_REST = {
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
}


def _sizes(shape, vocab_size, inner=None, added_words=0):
    extension = ExtensionConfig(*inner, num_attention_heads=12) if inner else None
    return ExBertConfig(BertConfig(vocab_size=vocab_size, **shape, **_REST), extension, added_words)


def _shapes(config):
    batch = tiny_batch(100)
    return jax.eval_shape(ExBert(config, jnp.float32).init, jax.random.key(0), batch)["params"]


def _count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("vocab_size", "inner", "added_words", "expected"),
    [
        pytest.param(30_522, None, 0, 110_106_428, id="BERT"),
        pytest.param(28_996, None, 0, 108_932_934, id="BioBERT"),
        pytest.param(31_090, None, 0, 110_543_220, id="SciBERT"),
        pytest.param(30_522, (120, 512), 17_658, 137_621_282, id="exBERT-s1"),
        pytest.param(30_522, (180, 720), 17_658, 143_671_634, id="exBERT-s2"),
        pytest.param(30_522, (252, 1024), 17_658, 151_935_410, id="exBERT-s3"),
        pytest.param(30_522, (504, 2048), 17_658, 180_120_866, id="exBERT-s4"),
        pytest.param(30_522, (768, 3072), 17_658, 208_749_122, id="exBERT-s5"),
    ],
)
def test_teachers_have_the_papers_number_of_parameters(vocab_size, inner, added_words, expected):
    # Teachers are counted as pretraining models, with both heads.
    assert _count(_shapes(_sizes(_BASE, vocab_size, inner, added_words))) == expected


@pytest.mark.parametrize(
    ("vocab_size", "inner", "added_words", "expected"),
    [
        pytest.param(30_522, None, 0, 14_590_632, id="BERT_GD"),
        pytest.param(28_996, None, 0, 14_114_520, id="BioBERT_GD"),
        pytest.param(31_090, None, 0, 14_767_848, id="SciBERT_GD"),
        pytest.param(30_522, (108, 400), 17_658, 21_649_100, id="exBERT_GD-108"),
        pytest.param(30_522, (96, 400), 17_658, 21_589_052, id="exBERT_GD-96"),
    ],
)
def test_students_have_the_papers_number_of_parameters(vocab_size, inner, added_words, expected):
    # Students are counted as encoder, pooler and the projection to the teacher's width.
    config = _sizes(_TINY, vocab_size, inner, added_words)
    shapes = _shapes(config)
    encoder = {name: tree for name, tree in shapes.items() if name not in ("mlm", "nsp")}
    projection = _projection_shapes(config)
    assert _count(encoder) + _count(projection) == expected


@pytest.mark.parametrize(("width", "expected"), [(96, 21_736_138), (108, 21_796_186)])
def test_edad_students_have_their_heads_beside_the_projection(width, expected):
    config = _sizes(_TINY, 30_522, (width, 400), 17_658)
    assert _count(_shapes(config)) + _count(_projection_shapes(config)) == expected


def _distilbert_parameters(vocab_size, layers, intermediate_size, positions):
    """Returns (parameters with the MLM head, without it); the head's decoder is the word table."""
    shape = _BASE | {"num_hidden_layers": layers, "intermediate_size": intermediate_size}
    rest = _REST | {"max_position_embeddings": positions, "type_vocab_size": 0}
    base = BertConfig(vocab_size=vocab_size, **shape, **rest, has_pooler=False)
    shapes = _shapes(ExBertConfig(base, None, 0))
    return _count(shapes), _count(shapes["base"])


@pytest.mark.parametrize(
    ("layers", "intermediate_size", "expected"),
    [
        (1, 192, 26_555_376),
        (1, 768, 27_440_688),
        (1, 3_072, 30_981_936),
        (3, 192, 31_878_000),
        (3, 768, 34_533_936),
        (3, 3_072, 45_157_680),
        (6, 192, 39_861_936),
        (6, 768, 45_173_808),
        (6, 3_072, 66_421_296),
    ],
)
def test_distil_kcberts_have_the_thesis_number_of_parameters(layers, intermediate_size, expected):
    # Table 4: a DistilBertForMaskedLM with KcBERT's 30,000 words and 300 positions.
    both, encoder = _distilbert_parameters(30_000, layers, intermediate_size, positions=300)
    assert both == expected
    assert both - encoder == 622_128


def test_distilbert_has_its_authors_number_of_parameters():
    assert _distilbert_parameters(30_522, 6, 3_072, positions=512) == (66_985_530, 66_362_880)


def test_albert_has_its_authors_number_of_parameters():
    # albert-base-v2's encoder and pooler, as transformers counts AlbertModel.
    albert = {"shares_layers": True, "embedding_size": 128, "hidden_act": "gelu_new"}
    shapes = _shapes(
        ExBertConfig(BertConfig(vocab_size=30_000, **_BASE, **_REST, **albert), None, 0)
    )
    assert _count(shapes["base"]) + _count(shapes["pooler"]) == 11_683_584


def _projection_shapes(config):
    fit = WidthProjection(768, config.base, jnp.float32)
    hidden_btd = jnp.zeros((1, 1, config.base.hidden_size))
    return jax.eval_shape(fit.init, jax.random.key(0), hidden_btd)


def test_teacher_trains_what_is_neither_base_nor_pooler():
    shapes = _shapes(_sizes(_BASE, 30_522, (252, 1024), 17_658))
    trained = {name: tree for name, tree in shapes.items() if name not in ("base", "pooler")}
    assert _count(trained) == 42_453_170


def _encode(model, params, batch, **options):
    rows = (batch.ids_bt, batch.segments_bt, batch.mask_bt)

    @jax.jit
    def run(params):
        return model.apply({"params": params}, *rows, method=model.encode, **options)

    return run(params)


def test_base_branch_is_bert_when_gate_is_one():
    config = tiny_exbert_config()
    batch = tiny_batch(config.base.vocab_size)  # base words only
    params = random_params(config)
    for layer in range(2):  # in float32, sigmoid is exactly 1 from about 17 on
        params["extension"][f"gates_{layer}"]["kernel"][:] = 0.0
        params["extension"][f"gates_{layer}"]["bias"][:] = 100.0
    # Operation by operation: compiled as a whole, the two nets may be fused differently.
    rows = (batch.ids_bt, batch.segments_bt, batch.mask_bt)
    model = ExBert(config, jnp.float32)
    output = model.apply({"params": params}, *rows, taps=(0, 1), method=model.encode)
    bert = Bert(config.base, jnp.float32)
    expected = bert.apply({"params": params["base"]}, *rows, taps=(0, 1))
    np.testing.assert_array_equal(output.embedding_btd, expected.embedding_btd)
    np.testing.assert_array_equal(output.last_hidden_btd, expected.last_hidden_btd)
    for layer in range(2):
        np.testing.assert_array_equal(output.hidden_btd[layer], expected.hidden_btd[layer])
        original_heads = raw_scores(output)[layer][:, :3]
        np.testing.assert_array_equal(original_heads, raw_scores(expected)[layer])


def test_gate_weighs_original_against_extension_by_token():
    config = tiny_exbert_config(num_hidden_layers=1)
    batch, params, model = tiny_batch(68), random_params(config), ExBert(config, jnp.float32)
    mixed_btd = _encode(model, params, batch).last_hidden_btd
    gate = params["extension"]["gates_0"]
    embedding_btd = np.asarray(_encode(model, params, batch).embedding_btd)
    share_bt1 = 1 / (1 + np.exp(-(embedding_btd @ gate["kernel"] + gate["bias"])))

    def with_bias(bias):
        gate["kernel"], gate["bias"] = np.zeros_like(gate["kernel"]), np.full((1,), bias)
        return np.asarray(_encode(model, params, batch).last_hidden_btd)

    expected_btd = share_bt1 * with_bias(100.0) + (1 - share_bt1) * with_bias(-100.0)
    np.testing.assert_allclose(mixed_btd, expected_btd, atol=2e-6)


def test_taps_return_the_named_layers_in_their_order():
    config = tiny_exbert_config(num_hidden_layers=3)
    batch, params, model = tiny_batch(68), random_params(config), ExBert(config, jnp.float32)
    every = _encode(model, params, batch, taps=(0, 1, 2))
    some = _encode(model, params, batch, taps=(2, 0))
    none = _encode(model, params, batch)
    assert len(some.hidden_btd) == len(some.heads) == 2
    assert none.hidden_btd == none.heads == ()
    for ours, layer in ((0, 2), (1, 0)):
        np.testing.assert_allclose(some.hidden_btd[ours], every.hidden_btd[layer], atol=1e-5)
        np.testing.assert_allclose(raw_scores(some)[ours], raw_scores(every)[layer], atol=1e-5)
    np.testing.assert_allclose(every.hidden_btd[2], none.last_hidden_btd, atol=1e-5)
    assert raw_scores(every)[0].shape == (3, 6, 11, 11)  # 3 original and 3 extension heads


def test_tapped_scores_are_raw():
    # Of the first layer, original heads: query . key / sqrt(head width), padding included.
    config = tiny_exbert_config()
    batch, params = tiny_batch(68), random_params(config)
    output = _encode(ExBert(config, jnp.float32), params, batch, taps=(0,))
    attention = params["base"]["layers_0"]["attention"]

    def heads(name):
        projected = np.asarray(output.embedding_btd) @ attention[name]["kernel"]
        return (projected + attention[name]["bias"]).reshape(3, 11, 3, 8)

    expected_bhts = np.einsum("bthk,bshk->bhts", heads("query"), heads("key")) / np.sqrt(8)
    np.testing.assert_allclose(raw_scores(output)[0][:, :3], expected_bhts, atol=1e-5)


def test_only_tapped_scores_leave_the_compiled_encoder():
    config = tiny_exbert_config()
    batch, params, model = tiny_batch(68), random_params(config), ExBert(config, jnp.float32)

    def results(taps):
        lowered = jax.jit(lambda params: _encode(model, params, batch, taps=taps)).lower(params)
        text = lowered.as_text()
        signature = next(line for line in text.splitlines() if "func.func public @main" in line)
        assert "stablehlo.dot_general" in text
        return signature.split("->")[1].count("tensor<3x3x11x11xf32>")

    assert results(()) == 0
    assert results((1,)) == 2  # of the original and of the extension
    assert results((0, 1)) == 4


def test_padding_changes_nothing_before_it():
    config = tiny_exbert_config()
    batch, params, model = tiny_batch(68), random_params(config), ExBert(config, jnp.float32)
    other = batch._replace(ids_bt=np.where(batch.mask_bt, batch.ids_bt, 5))
    ours = np.asarray(_encode(model, params, batch).last_hidden_btd)
    others = np.asarray(_encode(model, params, other).last_hidden_btd)
    np.testing.assert_array_equal(ours[batch.mask_bt], others[batch.mask_bt])
    assert np.abs(ours - others).max() > 0.1


@pytest.mark.parametrize("blocks", [True, False])
def test_words_come_from_the_base_table_below_its_size_and_from_the_added_one_above(blocks):
    config = tiny_exbert_config(blocks=blocks)
    params, model = random_params(config), ExBert(config, jnp.float32)
    ids_bt = np.arange(50, 68, dtype=np.int32)[None]
    batch = tiny_batch(68)._replace(
        ids_bt=ids_bt, segments_bt=np.zeros_like(ids_bt), mask_bt=np.ones_like(ids_bt, bool)
    )
    embeddings = params["base"]["embeddings"]
    joint_vd = np.concatenate(
        [embeddings["word"]["embedding"], params["extension"]["word"]["embedding"]]
    )
    summed = joint_vd[50:68] + embeddings["position"]["embedding"][:18]
    summed += embeddings["token_type"]["embedding"][0]
    centred = summed - summed.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    expected = normed * embeddings["norm"]["scale"] + embeddings["norm"]["bias"]
    output = _encode(model, params, batch)
    np.testing.assert_allclose(output.embedding_btd[0], expected, atol=2e-6)
    logits = model.apply(
        {"params": params}, output.last_hidden_btd, np.array([[0]]), method=model.mlm_logits
    )
    assert logits.shape == (1, 1, 68)


def test_bfloat16_loses_little_of_gradients_that_sum_over_many_pieces():
    config = tiny_exbert_config()
    params, batch = random_params(config), tiny_batch(68, rows=256, length=20)
    batch = batch._replace(mask_bt=np.ones_like(batch.mask_bt))

    def gradients(dtype):
        def loss(params):
            output = _encode(ExBert(config, dtype), params, batch)
            return jnp.square(output.last_hidden_btd.astype(jnp.float32) - 1.0).mean()

        leaves = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params))
        wanted = ("'bias'", "'token_type'", "'position'")
        names = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        return {name: g for name, g in names.items() if any(part in name for part in wanted)}

    exact, rounded = gradients(jnp.float32), gradients(jnp.bfloat16)
    largest = max(np.linalg.norm(gradient) for gradient in exact.values())
    for name, gradient in exact.items():
        norm = np.linalg.norm(gradient)
        if norm > 1e-3 * largest:  # nearly none is nearly all rounding: keys' biases have none
            assert np.linalg.norm(rounded[name] - gradient) < 0.05 * norm, name


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="hidden_size=25 is not divisible.*heads=3.*=24"):
        tiny_bert_config(hidden_size=25)
    with pytest.raises(ValueError, match="extension hidden_size=100 .*12"):
        ExtensionConfig(hidden_size=100, intermediate_size=400, num_attention_heads=12)


def test_rows_longer_than_the_position_table_are_an_error():
    config = tiny_exbert_config(max_position_embeddings=10)
    with pytest.raises(ValueError, match="rows of 11 pieces .*max_position_embeddings=10"):
        _encode(ExBert(config, jnp.float32), random_params_of(config), tiny_batch(68))


def random_params_of(config):
    """Returns parameters for a model too short for `tiny_batch`."""
    longer = tiny_exbert_config(max_position_embeddings=20)
    params = random_params(longer)
    params["base"]["embeddings"]["position"]["embedding"] = np.zeros(
        (config.base.max_position_embeddings, config.base.hidden_size), np.float32
    )
    return params
