# SPDX-License-Identifier: Apache-2.0
"""DistilBERT and ALBERT: parity with torch, and their checkpoints in and out.

As for BERT, parity runs live where torch is installed, and against tests/golden everywhere.
"""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edad_jax.export import huggingface
from edad_jax.models import convert, pretrained
from edad_jax.models.config import ExBertConfig
from edad_jax.models.config_json import bert_config, family_of, sizes_json
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Pooler
from edad_jax.models.hf_files import load_checkpoint
from edad_jax.models.task import Task
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

DISTILBERT = {"type_vocab_size": 0, "has_pooler": False}
ALBERT = {"shares_layers": True, "embedding_size": 16, "hidden_act": "gelu_new"}
FRESH = {"distilbert": (), "albert": ("nsp",)}


def plain(base):
    """Returns an exBERT that has this base and nothing more."""
    return ExBertConfig(base, extension=None, extension_vocab_size=0)


def load(directory, **options):
    """Returns (sizes, parameters) of a checkpoint."""
    checkpoint = load_checkpoint(str(directory))
    config = bert_config(checkpoint.config)
    return config, convert.bert_params(checkpoint, config, **options)


@pytest.fixture(params=["distilbert", "albert"])
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


@pytest.mark.parametrize("changes", [{}, {"n_heads": 4, "n_layers": 1, "activation": "gelu_new"}])
def test_distilbert_matches_torch(tmp_path, changes):
    pytest.importorskip("torch")
    from tests.golden.make_bert_golden import make_distilbert, run, save

    model = make_distilbert(**changes)
    save(model, tmp_path / "model")
    config, params = load(tmp_path / "model")
    assert config.type_vocab_size == 0
    assert set(params) == {"base", "mlm"}
    assert_parity(plain(config), params, run(model, rows=4, length=17))


def test_albert_matches_torch(tmp_path):
    pytest.importorskip("torch")
    from tests.golden.make_bert_golden import make_albert, run, save

    model = make_albert("AlbertForMaskedLM", hidden_act="gelu", embedding_size=24)
    save(model, tmp_path / "model")
    config, params = load(tmp_path / "model", fresh=("pooler", "nsp"))
    assert "projection" in params["base"]["embeddings"]  # ALBERT's map is there at equal width too
    assert_parity(plain(config), params, run(model, rows=4, length=17))


def test_alberts_pooler_matches_torch(tmp_path):
    torch = pytest.importorskip("torch")
    from tests.golden.make_bert_golden import make_albert

    model = make_albert("AlbertModel")
    model.save_pretrained(tmp_path)
    config, params = load(tmp_path, fresh=("mlm", "nsp"))
    hidden_btd = np.random.default_rng(0).standard_normal((3, 2, 24), np.float32)
    with torch.no_grad():
        expected = torch.tanh(model.pooler(torch.from_numpy(hidden_btd[:, 0])))
    pooled = Pooler(config, jnp.float32).apply({"params": params["pooler"]}, hidden_btd)
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


# What a good checkpoint may look like


def test_names_without_prefix_and_decoders_that_are_stored_are_the_same(folder, family):
    config, expected = load(folder, fresh=FRESH[family])
    decoder = {"distilbert": "vocab_projector", "albert": "predictions.decoder"}[family]

    def change(tensors):
        tensors = {name.removeprefix(f"{family}."): array for name, array in tensors.items()}
        tensors[f"{decoder}.weight"] = tensors["embeddings.word_embeddings.weight"].copy()
        if family == "albert":
            tensors[f"{decoder}.bias"] = tensors["predictions.bias"].copy()
            assert "sop_classifier.classifier.weight" in tensors  # left behind
        return tensors

    edit(folder, change)
    loaded_config, loaded = load(folder, fresh=FRESH[family])
    assert loaded_config == config
    assert_trees_equal(loaded, expected)
    edit(folder, lambda t: t | {f"{decoder}.weight": t[f"{decoder}.weight"] + 1})
    with pytest.raises(ValueError, match=f"{decoder}.weight differs .*fresh"):
        load(folder, fresh=FRESH[family])


def test_an_encoder_without_its_mlm_head_is_told_the_option(folder, family):
    heads = ("vocab_", "predictions.")
    edit(folder, lambda t: {name: x for name, x in t.items() if not name.startswith(heads)})
    with pytest.raises(ValueError, match="--config.teacher.fresh=\"\\('mlm',"):
        load(folder)
    fresh = (*FRESH[family], "mlm")
    assert set(load(folder, fresh=fresh)[1]) == {
        "base",
        *({"pooler"} if family == "albert" else ()),
    }


def test_an_alberts_head_for_the_order_of_sentences_is_not_taken_for_nsp():
    with pytest.raises(ValueError, match="missing .2.(.*\n)*.*fresh=\"\\('nsp',\\)\""):
        load(GOLDEN / "albert")


def test_sizes_come_from_each_familys_own_words():
    config, _ = load(GOLDEN / "distilbert")
    sizes = tiny_bert_config(vocab_size=68, initializer_range=0.02, **DISTILBERT)
    assert config == sizes
    config, _ = load(GOLDEN / "albert", fresh=("nsp",))
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    assert config == tiny_bert_config(vocab_size=68, num_hidden_layers=3, **ALBERT, **rates)


@pytest.mark.parametrize("options", [{}, DISTILBERT, ALBERT, {"has_pooler": False}])
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
        ({"model_type": "t5"}, "model_type='t5', expected 'bert', 'distilbert' or 'albert'"),
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
    ],
)
def test_sizes_that_no_checkpoint_can_hold_are_an_error(options, extended):
    with pytest.raises(ValueError, match="no kind of checkpoint can hold"):
        family_of(tiny_bert_config(**options), extended=extended)


@pytest.mark.parametrize(
    "options", [{"hidden_act": "relu"}, {"type_vocab_size": -1}, {"embedding_size": -1}]
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
    output, mlm_logits, nsp_logits = model.apply({"params": params}, batch)
    assert nsp_logits is None
    other = batch._replace(segments_bt=1 - batch.segments_bt)
    np.testing.assert_array_equal(model.apply({"params": params}, other)[1], mlm_logits)


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


def test_extension_stands_beside_a_distilbert(tmp_path, tokenizer_dir):
    base = tiny_bert_config(**DISTILBERT)
    config = dataclasses.replace(_exbert(), base=base)
    params, batch = random_params(config), tiny_batch(68)
    _, mlm_logits, nsp_logits = ExBert(config, jnp.float32).apply({"params": params}, batch)
    assert mlm_logits.shape == (3, 2, 68)
    assert nsp_logits is None
    huggingface.save_model(tmp_path / "model", params, config, tokenizer_dir, card=CARD)
    loaded_config, loaded = pretrained.load_model(tmp_path / "model")
    assert loaded_config == config
    assert_trees_equal(loaded, params)


def _exbert():
    from tests.tiny_models import tiny_exbert_config

    return tiny_exbert_config()


# Out again, to torch


@pytest.mark.parametrize("options", [DISTILBERT, ALBERT, {"has_pooler": False}])
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
    ("options", "name"),
    [
        (DISTILBERT, "DistilBertForMaskedLM"),
        (ALBERT, "AlbertForMaskedLM"),
        ({"has_pooler": False}, "BertForMaskedLM"),
        (DISTILBERT | {"extension": True}, "ExBertForMaskedLM"),
    ],
)
def test_torch_loads_what_is_saved(tmp_path, tokenizer_dir, monkeypatch, options, name):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tests.golden.make_bert_golden import exbert_module, run

    options = dict(options)
    config = _exbert() if options.pop("extension", False) else plain(tiny_bert_config())
    config = dataclasses.replace(
        config, base=tiny_bert_config(vocab_size=68 - config.extension_vocab_size, **options)
    )
    params = random_params(config)
    heads = {name: tree for name, tree in params.items() if name not in ("pooler", "nsp")}
    huggingface.save_model(tmp_path / "model", heads, config, tokenizer_dir, card=CARD)
    values = json.loads((tmp_path / "model" / "config.json").read_text())
    assert values["architectures"] == [name]
    module = exbert_module() if name.startswith("ExBert") else transformers
    attention = {} if name.startswith("ExBert") else {"attn_implementation": "eager"}
    for class_name in (name, name.replace("ForMaskedLM", "Model")):
        model, info = getattr(module, class_name).from_pretrained(
            tmp_path / "model", output_loading_info=True, **attention
        )
        if class_name == name:
            assert not any(info.values()), info
            assert_parity(config, params, run(model.eval(), rows=4, length=17))
        missing = {key for key in info["missing_keys"] if "pooler" not in key}
        assert not missing


@pytest.mark.parametrize("kind", ["tagging", "classification", "answering"])
@pytest.mark.parametrize("prefix", ["DistilBert", "Albert"])
def test_fine_tuned_models_go_there_and_back(tmp_path, tokenizer_dir, prefix, kind):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from edad_jax.export import formats

    base = tiny_bert_config(vocab_size=68, **(DISTILBERT if prefix == "DistilBert" else ALBERT))
    config, task = plain(base), Task(kind, ("a", "b"))
    random = np.random.default_rng(0)
    params = {"base": random_params(config)["base"]}
    for head, width in (
        ("classifier", 2),
        *((("pooler", 24),) if kind == "classification" else ()),
    ):
        kernel = random.standard_normal((24, width), np.float32)
        params[head] = {"dense": {"kernel": kernel, "bias": kernel[0] + 1}}
    huggingface.save_model(tmp_path / "model", params, config, tokenizer_dir, card=CARD, task=task)
    loaded_config, loaded, loaded_task = pretrained.load_task_model(tmp_path / "model")
    assert (loaded_config, loaded_task) == (config, task)
    assert_trees_equal(loaded, params)
    architecture = json.loads((tmp_path / "model" / "config.json").read_text())["architectures"][0]
    assert architecture.startswith(prefix)
    model, info = getattr(transformers, architecture).from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(info.values()), info
    ids_bt = random.integers(5, 68, (2, 7)).astype(np.int32)
    with torch.no_grad():
        output = model.eval()(torch.from_numpy(ids_bt).long())
    names = ("start_logits", "end_logits") if kind == "answering" else ("logits",)
    ours = formats.forward(
        formats.Model("", config, params, task),
        params,
        ids_bt,
        np.ones_like(ids_bt),
        np.zeros_like(ids_bt),
    )
    for name, logits in zip(names, ours, strict=True):
        np.testing.assert_allclose(logits, output[name], atol=1e-5)
