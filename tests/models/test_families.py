# SPDX-License-Identifier: Apache-2.0
"""BERT's kin: parity with torch, and their checkpoints in and out.

As for BERT, parity is with what torch computed, in tests/golden.
"""

import dataclasses
import functools
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from edad_jax.export import formats, huggingface
from edad_jax.models import convert, pretrained
from edad_jax.models.block_copy import copy_blocks
from edad_jax.models.config import ExBertConfig, Execution, ExtensionConfig
from edad_jax.models.config_json import bert_config, family_of, sizes_json
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Pooler
from edad_jax.models.hf_files import load_checkpoint
from edad_jax.models.relative_position import buckets
from tests.golden_exports import (
    ALBERT,
    DISTILBERT,
    ELECTRA,
    MPNET,
    ROBERTA,
    load_outputs,
    write_and_check,
)
from tests.tiny_exports import CARD, write_words
from tests.tiny_models import (
    GOLDEN,
    assert_parity,
    assert_trees_equal,
    load_golden,
    random_params,
    tiny_batch,
    tiny_bert_config,
)

FAMILIES = ("distilbert", "albert", "roberta", "electra", "mpnet")
FRESH = dict.fromkeys(FAMILIES, ()) | {"albert": ("nsp",)}


# What a config.json must say of a RoBERTa's sizes.
SIZES = {
    "model_type": "roberta",
    "vocab_size": 68,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}


def plain(base):
    """Returns an exBERT that has this base and nothing more."""
    return ExBertConfig(base, extension=None, extension_vocab_size=0)


def load(directory, **options):
    """Returns (sizes, parameters) of a checkpoint."""
    checkpoint = load_checkpoint(str(directory))
    config = bert_config(checkpoint.config)
    return config, convert.bert_params(checkpoint, config, **options)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def folder(tmp_path, family):
    """A copy of a golden checkpoint that a test may change."""
    shutil.copytree(GOLDEN / family, tmp_path / family)
    return tmp_path / family


@pytest.fixture
def tokenizer_dir(tmp_path):
    return write_words(tmp_path / "tokenizer")


def edit(directory, change):
    """Rewrites a checkpoint's tensors by `change(dict) -> dict`."""
    tensors = change(load_file(directory / "model.safetensors"))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


# Parity


def test_golden_torch_is_matched(family):
    config, params = load(GOLDEN / family, fresh=FRESH[family])
    assert_parity(plain(config), params, load_golden(family))


def test_golden_parity_notices_the_other_gelu(family):
    config, params = load(GOLDEN / family, fresh=FRESH[family])
    other = {"gelu": "gelu_new", "gelu_new": "gelu"}[config.hidden_act]
    with pytest.raises(AssertionError):
        assert_parity(
            plain(dataclasses.replace(config, hidden_act=other)), params, load_golden(family)
        )


@pytest.mark.parametrize(
    ("name", "fresh", "parts"),
    [
        ("distilbert, 4 heads", (), {"base", "mlm"}),
        ("albert, wide table", ("pooler", "nsp"), {"base", "mlm"}),
        ("electra, wide table", (), {"base", "mlm"}),
        ("xlm-roberta", (), {"base", "mlm"}),
    ],
)
def test_other_sizes_match_golden_torch(tmp_path, name, fresh, parts):
    read = write_and_check(name, tmp_path)
    config, params = load(read.folder, fresh=fresh)
    assert set(params) == parts
    if name.startswith("albert"):  # its map is there at equal width too
        assert "projection" in params["base"]["embeddings"]
    assert_parity(plain(config), params, read.outputs)


def test_alberts_pooler_matches_golden_torch():
    config, params = load(GOLDEN / "albert", fresh=("mlm", "nsp"))
    torchs = load_outputs("poolers")
    pooled_bd = Pooler(config, jnp.float32).apply(
        {"params": params["pooler"]}, torchs["albert_hidden_btd"]
    )
    np.testing.assert_allclose(pooled_bd, torchs["albert_pooled_bd"], atol=1e-6)


def test_gradients_match_golden_torch():
    config, params = load(GOLDEN / "mpnet")
    torchs = load_golden("mpnet")
    ids_bt, mask_bt = torchs["ids_bt"], torchs["mask_bt"]
    model = ExBert(plain(config), jnp.float32)

    @jax.jit
    @jax.grad
    def gradient(params):
        variables = {"params": params}
        inputs = (ids_bt, torchs["segments_bt"], mask_bt)
        hidden_btd = model.apply(variables, *inputs, method="encode").last_hidden_btd
        positions_bt = jnp.broadcast_to(jnp.arange(ids_bt.shape[1])[None], ids_bt.shape)
        logits_btv = model.apply(variables, hidden_btd, positions_bt, method="mlm_logits")
        loss_bt = optax.softmax_cross_entropy_with_integer_labels(logits_btv, ids_bt)
        return jnp.where(mask_bt, loss_bt, 0).sum() / mask_bt.sum()

    ours = convert.to_torch_names(gradient(params), plain(config))
    with np.load(GOLDEN / "mpnet" / "gradients.npz", allow_pickle=False) as arrays:
        expected = dict(arrays)
    assert set(ours) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(ours[name], array, atol=1e-6, err_msg=name)
    assert np.abs(expected["mpnet.encoder.relative_attention_bias.weight"]).max() > 0.01


def test_distances_have_the_buckets_of_torch():
    np.testing.assert_array_equal(buckets(np.arange(-600, 601)), load_golden("mpnet")["buckets"])


# What a good checkpoint may look like


def test_names_without_prefix_and_decoders_that_are_stored_are_the_same(folder, family):
    config, expected = load(folder, fresh=FRESH[family])
    decoder = {
        "distilbert": "vocab_projector",
        "albert": "predictions.decoder",
        "roberta": "lm_head.decoder",
        "electra": "generator_lm_head",
        "mpnet": "lm_head.decoder",
    }[family]

    def change(tensors):
        tensors = {name.removeprefix(f"{family}."): array for name, array in tensors.items()}
        tensors[f"{decoder}.weight"] = tensors["embeddings.word_embeddings.weight"].copy()
        if family == "albert":
            tensors[f"{decoder}.bias"] = tensors["predictions.bias"].copy()
            assert "sop_classifier.classifier.weight" in tensors  # left behind
        if family in ("roberta", "mpnet"):
            tensors[f"{decoder}.bias"] = tensors["lm_head.bias"].copy()
            tensors["pooler.dense.weight"] = np.zeros((24, 24), np.float32)  # likewise
        return tensors

    edit(folder, change)
    loaded_config, loaded = load(folder, fresh=FRESH[family])
    assert loaded_config == config
    assert_trees_equal(loaded, expected)
    edit(folder, lambda t: t | {f"{decoder}.weight": t[f"{decoder}.weight"] + 1})
    with pytest.raises(ValueError, match=f"{decoder}.weight differs .*fresh"):
        load(folder, fresh=FRESH[family])


def test_an_encoder_without_its_mlm_head_is_told_the_option(folder, family):
    heads = ("vocab_", "predictions.", "lm_head.", "generator_")
    edit(folder, lambda t: {name: x for name, x in t.items() if not name.startswith(heads)})
    with pytest.raises(ValueError, match="--config.teacher.random_heads=\"\\('mlm',"):
        load(folder)
    fresh = (*FRESH[family], "mlm")
    assert set(load(folder, fresh=fresh)[1]) == {
        "base",
        *({"pooler"} if family == "albert" else ()),
    }


def test_an_alberts_head_for_the_order_of_sentences_is_not_taken_for_nsp():
    with pytest.raises(ValueError, match="missing .2.(.*\n)*.*random_heads=\"\\('nsp',\\)\""):
        load(GOLDEN / "albert")


def test_sizes_come_from_each_familys_own_words():
    config, _ = load(GOLDEN / "distilbert")
    sizes = tiny_bert_config(vocab_size=68, initializer_range=0.02, **DISTILBERT)
    assert config == sizes
    config, _ = load(GOLDEN / "albert", fresh=("nsp",))
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    assert config == tiny_bert_config(vocab_size=68, num_hidden_layers=3, **ALBERT, **rates)
    config, _ = load(GOLDEN / "roberta")
    sizes = ROBERTA | {"position_offset": 2, "max_position_embeddings": 18, "layer_norm_eps": 1e-5}
    assert config == tiny_bert_config(vocab_size=68, **sizes)
    config, _ = load(GOLDEN / "electra")
    assert config == tiny_bert_config(vocab_size=68, **ELECTRA)
    config, _ = load(GOLDEN / "mpnet")
    sizes = MPNET | {"max_position_embeddings": 24, "layer_norm_eps": 1e-5}
    assert config == tiny_bert_config(vocab_size=68, **sizes)


def test_a_discriminator_has_no_mlm_head_and_says_so(tmp_path):
    shutil.copytree(GOLDEN / "electra", tmp_path / "electra")

    def change(tensors):
        kept = {name: x for name, x in tensors.items() if not name.startswith("generator_")}
        return kept | {"discriminator_predictions.dense.weight": np.zeros((24, 24), np.float32)}

    edit(tmp_path / "electra", change)
    with pytest.raises(ValueError, match="missing .5.(.*\n)*.*random_heads=\"\\('mlm',"):
        load(tmp_path / "electra")
    assert set(load(tmp_path / "electra", fresh=("mlm",))[1]) == {"base"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        DISTILBERT,
        ALBERT,
        {"has_pooler": False},
        ROBERTA,
        ROBERTA | {"family": "xlm-roberta", "position_offset": 2},
        ELECTRA,
        ELECTRA | {"embedding_size": 0},
        MPNET,
    ],
)
def test_sizes_survive_config_json(options):
    config = tiny_bert_config(**options)
    values = json.loads(json.dumps(sizes_json(config, extended=False)))
    assert bert_config(values) == config
    assert values["model_type"] == family_of(config, extended=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "albert", "num_hidden_groups": 2}, "num_hidden_groups=2, expected 1"),
        ({"model_type": "albert", "inner_group_num": 2}, "inner_group_num=2, expected 1"),
        ({"model_type": "distilbert", "activation": "relu"}, "activation='relu', expected 'gelu'"),
        ({"model_type": "distilbert"}, "lacks vocab_size, dim, n_layers, n_heads, hidden_dim"),
        (
            {"model_type": "t5"},
            "model_type='t5', expected one of bert, distilbert, albert, roberta, xlm-roberta, elec",
        ),
        ({"model_type": "gpt2"}, "model_type='gpt2', expected one of bert, "),
        ({"model_type": "roberta", "is_decoder": True}, "is_decoder=true: pieces see only"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder=true: half of the net"),
        ({"model_type": "roberta", "hidden_act": "relu"}, "hidden_act='relu', expected 'gelu'"),
        (SIZES | {"pad_token_id": 19}, "pad_token_id=19, expected a number below max_pos.*=20"),
        (SIZES | {"pad_token_id": "1"}, "pad_token_id='1', expected a number"),
        (
            {"model_type": "electra", "position_embedding_type": "relative_key"},
            "position_embedding_type='relative_key', expected 'absolute'",
        ),
        (
            {"model_type": "mpnet", "relative_attention_num_buckets": 64},
            "relative_attention_num_buckets=64, expected 32: ",
        ),
        ({"model_type": "mpnet", "pad_token_id": 0}, "pad_token_id=0, expected 1: "),
    ],
)
def test_a_config_json_of_something_else_is_an_error(values, message):
    with pytest.raises(ValueError, match=message):
        bert_config(values)


@pytest.mark.parametrize(
    ("options", "extended"),
    [
        ({"shares_layers": True}, False),
        ({"embedding_size": 8}, False),
        (ALBERT, True),
        ({"type_vocab_size": 0}, False),
        (ALBERT | {"type_vocab_size": 0}, False),
        (DISTILBERT | {"layer_norm_eps": 1e-6}, False),
        (ROBERTA, True),
        (ROBERTA | {"position_offset": 0}, False),
        (ROBERTA | {"embedding_size": 8}, False),
        (ROBERTA | {"hidden_act": "gelu_new"}, False),
        (ELECTRA | {"position_offset": 1}, False),
        (ELECTRA | {"has_pooler": True}, False),
        (ELECTRA | {"type_vocab_size": 0}, False),
        (ELECTRA | {"relative_attention_num_buckets": 32}, False),
        ({"relative_attention_num_buckets": 32}, False),
        (MPNET, True),
        (MPNET | {"position_offset": 1}, False),
        (MPNET | {"type_vocab_size": 1}, False),
        (MPNET | {"relative_attention_num_buckets": 0}, False),
    ],
)
def test_sizes_that_no_checkpoint_can_hold_are_an_error(options, extended):
    with pytest.raises(ValueError, match="no kind of checkpoint can hold"):
        family_of(tiny_bert_config(**options), extended=extended)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_act": "relu"},
        {"type_vocab_size": -1},
        {"embedding_size": -1},
        {"relative_attention_num_buckets": 16},
    ],
)
def test_sizes_that_make_no_sense_are_an_error(options):
    with pytest.raises(ValueError, match=f"got {next(iter(options))}=.*, expected"):
        tiny_bert_config(**options)


# The nets


def test_options_decide_which_parameters_there_are():
    whole = set(random_params(plain(tiny_bert_config())))
    assert whole == {"base", "pooler", "mlm", "nsp"}
    params = random_params(plain(tiny_bert_config(**DISTILBERT)))
    assert set(params) == {"base", "mlm"}
    assert set(params["base"]["embeddings"]) == {"word", "position", "norm"}
    params = random_params(plain(tiny_bert_config(num_hidden_layers=5, **ALBERT)))
    assert {name for name in params["base"] if name != "embeddings"} == {"layers_0"}
    assert params["base"]["embeddings"]["word"]["embedding"].shape == (61, 16)
    assert params["base"]["embeddings"]["norm"]["scale"].shape == (16,)
    assert params["base"]["embeddings"]["projection"]["kernel"].shape == (16, 24)
    assert params["mlm"]["transform"]["kernel"].shape == (24, 16)


def test_a_net_without_pooler_has_no_nsp_logits_and_reads_no_segments():
    config = plain(tiny_bert_config(**DISTILBERT))
    params, batch = random_params(config), tiny_batch(61)
    model = ExBert(config, jnp.float32)
    output, (mlm_logits_bmv,), nsp_logits = model.apply({"params": params}, batch)
    assert nsp_logits is None
    other = batch._replace(segments_bt=1 - batch.segments_bt)
    np.testing.assert_array_equal(model.apply({"params": params}, other)[1][0], mlm_logits_bmv)


def test_shared_layers_drop_different_numbers():
    """Otherwise what one layer loses all lose."""
    config = plain(tiny_bert_config(num_hidden_layers=2, **ALBERT, hidden_dropout_prob=0.5))
    params, batch = random_params(config), tiny_batch(61)
    block = params["base"]["layers_0"]
    # Nothing but dropout of the first layer norm's input tells the two layers apart.
    for part in jax.tree.leaves([block["attention"]["output"], block["output"]]):
        part[:] = 0.0
    block["output"]["bias"][:] = 100.0
    output, *_ = ExBert(config, jnp.float32).apply(
        {"params": params},
        batch,
        taps=(0, 1),
        deterministic=False,
        rngs={"dropout": jax.random.key(0)},
    )
    first, second = (
        np.asarray(h) > np.asarray(h).mean(-1, keepdims=True) for h in output.hidden_btd
    )
    assert 0.2 < (first != second).mean() < 0.8


def test_extension_blocks_have_as_many_heads_as_there_are_biases():
    base = tiny_bert_config(relative_attention_num_buckets=32)
    with pytest.raises(ValueError, match="set extension.num_attention_heads=3"):
        ExBertConfig(base, ExtensionConfig(12, 16, num_attention_heads=2), 0)


def test_fused_attention_refuses_a_bias():
    config = plain(tiny_bert_config(**MPNET))
    model = ExBert(config, jnp.float32, execution=Execution(attention="fused"))
    with pytest.raises(ValueError, match="take --config.attention=explicit"):
        jax.eval_shape(model.init, jax.random.key(0), tiny_batch(61))


def test_a_copy_of_a_block_has_its_bias():
    """Of the same sizes, what is copied answers as the original whatever the gate says."""
    base = tiny_bert_config(relative_attention_num_buckets=32)
    config = ExBertConfig(base, ExtensionConfig(24, 40, 3), 0)
    params, batch = random_params(config), tiny_batch(61)
    model = ExBert(config, jnp.float32)
    copied = copy_blocks(model, params, batch)

    @functools.partial(jax.jit, static_argnums=0)
    def encode(model, params):
        inputs = (batch.ids_bt, batch.segments_bt, batch.mask_bt)
        return model.apply({"params": params}, *inputs, method="encode").last_hidden_btd

    plain_btd = encode(ExBert(plain(base), jnp.float32), params)
    copied_btd = encode(model, copied)
    np.testing.assert_allclose(copied_btd[batch.mask_bt], plain_btd[batch.mask_bt], atol=1e-3)
    assert np.abs(plain_btd - encode(model, params))[batch.mask_bt].max() > 0.1


def test_extension_stands_beside_a_distilbert(tmp_path, tokenizer_dir):
    base = tiny_bert_config(**DISTILBERT)
    config = dataclasses.replace(_exbert(), base=base)
    params, batch = random_params(config), tiny_batch(68)
    _, mlm_logits, nsp_logits = ExBert(config, jnp.float32).apply({"params": params}, batch)
    assert [logits_bmv.shape for logits_bmv in mlm_logits] == [(3, 2, 61), (3, 2, 7)]
    assert nsp_logits is None
    huggingface.save_model(tmp_path / "model", params, config, tokenizer_dir, card=CARD)
    loaded_config, loaded = pretrained.load_model(tmp_path / "model")
    assert loaded_config == config
    assert_trees_equal(loaded, params)


def _exbert():
    from tests.tiny_models import tiny_exbert_config

    return tiny_exbert_config()


# Out again, to what torch read


@pytest.mark.parametrize(
    "options",
    [DISTILBERT, ALBERT, {"has_pooler": False}, ROBERTA | {"position_offset": 2}, ELECTRA, MPNET],
)
@pytest.mark.parametrize("added_words", [0, 7])
def test_what_is_saved_loads_back_bit_for_bit(tmp_path, tokenizer_dir, options, added_words):
    base = tiny_bert_config(vocab_size=68 - added_words, **options)
    config = ExBertConfig(base, None, added_words)
    params = random_params(config)
    huggingface.save_model(tmp_path / "model", params, config, tokenizer_dir, card=CARD)
    loaded_config, loaded = pretrained.load_model(tmp_path / "model")
    assert loaded_config == config
    assert_trees_equal(loaded, params)


@pytest.mark.parametrize(
    ("name", "opened_by"),
    [
        ("distilbert", "DistilBertForMaskedLM"),
        ("albert", "AlbertForMaskedLM"),
        ("bert without pooler", "BertForMaskedLM"),
        ("exbert on distilbert", "ExBertForMaskedLM"),
        ("roberta", "RobertaForMaskedLM"),
        ("xlm-roberta", "XLMRobertaForMaskedLM"),
        ("electra", "ElectraForMaskedLM"),
        ("electra, wide table", "ElectraForMaskedLM"),
        ("exbert on roberta", "ExBertForMaskedLM"),
        ("mpnet", "MPNetForMaskedLM"),
        ("exbert on mpnet", "ExBertForMaskedLM"),
    ],
)
def test_torch_computes_ours_from_what_is_saved(tmp_path, name, opened_by):
    read = write_and_check(name, tmp_path)
    assert read.opened_by == opened_by
    assert_parity(read.config, read.params, read.outputs)


@pytest.mark.parametrize("kind", ["tagging", "classification", "answering"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fine_tuned_models_go_there_and_back(tmp_path, family, kind):
    read = write_and_check(f"{family} for {kind}", tmp_path)
    assert read.opened_by.lower().startswith(family)
    loaded_config, loaded, task = pretrained.load_task_model(read.folder)
    assert (loaded_config, task) == (read.config, read.task)
    assert_trees_equal(loaded, read.params)
    model = formats.Model("", read.config, read.params, read.task)
    inputs = (read.outputs[name] for name in ("ids_bt", "mask_bt", "segments_bt"))
    ours = np.stack(_forward(model)(read.params, *inputs), -1)
    expected = read.outputs["logits"]
    if kind != "answering":
        ours = ours[..., 0]
    where = slice(None) if kind == "classification" else read.outputs["mask_bt"]
    np.testing.assert_allclose(ours[where], expected[where], atol=1e-5, rtol=1e-5)


def _forward(model):
    return jax.jit(lambda params, *inputs: formats.forward(model, params, *inputs))


def test_the_page_of_families_names_tests_that_there_are():
    root = GOLDEN.parents[1]
    page = (root / "docs" / "families.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    files = (root / "tests").rglob("test_*.py")
    there = {
        name for file in files for name in re.findall(r"def (test_\w+)", file.read_text("utf-8"))
    }
    assert len(named) > 20 and not named - there
    assert all(
        (root / "tests" / path).is_file() for path in re.findall(r"(\w+/test_\w+\.py)", page)
    )
