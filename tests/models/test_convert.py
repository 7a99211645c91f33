# SPDX-License-Identifier: Apache-2.0
"""Checkpoints become parameters: parity with torch, and what a bad checkpoint is told.

Parity is with what torch computed, in tests/golden; test_torch_models.py asks torch again.
"""

import dataclasses
import json
import shutil
import socket
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edad_jax.models import convert, hf_files
from edad_jax.models.config import ExBertConfig
from edad_jax.models.config_json import bert_config
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Pooler
from tests.golden_exports import load_outputs, write_and_check
from tests.tiny_models import (
    GOLDEN,
    assert_parity,
    assert_trees_equal,
    load_golden,
    random_params,
    tiny_bert_config,
    tiny_exbert_config,
)


def plain(config):
    """Returns an exBERT that is this BERT."""
    return ExBertConfig(config, extension=None, extension_vocab_size=0)


def load(directory, **options):
    """Returns (sizes, parameters) of a BERT checkpoint."""
    checkpoint = hf_files.load_checkpoint(str(directory))
    config = bert_config(checkpoint.config)
    return config, convert.bert_params(checkpoint, config, **options)


@pytest.fixture
def bert_directory(tmp_path):
    """A copy of the golden BERT that a test may damage."""
    directory = tmp_path / "bert"
    directory.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(GOLDEN / "bert" / name, directory / name)
    return directory


def edit(directory, change):
    """Rewrites a checkpoint's tensors by `change(dict)`."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


# Parity


def test_bert_matches_golden_torch():
    config, params = load(GOLDEN / "bert")
    assert_parity(plain(config), params, load_golden("bert"))


def test_golden_parity_notices_another_gelu_and_another_epsilon(monkeypatch):
    config, params = load(GOLDEN / "bert")
    wrong = dataclasses.replace(config, layer_norm_eps=1e-3)
    with pytest.raises(AssertionError):
        assert_parity(plain(wrong), params, load_golden("bert"))
    exact = jax.nn.gelu
    monkeypatch.setattr(jax.nn, "gelu", lambda x, approximate: exact(x, approximate=True))
    with pytest.raises(AssertionError):
        assert_parity(plain(config), params, load_golden("bert"))


def test_bert_of_other_sizes_matches_golden_torch(tmp_path):
    read = write_and_check("bert, 4 heads", tmp_path)
    config, params = load(read.folder)
    assert (config.num_attention_heads, config.num_hidden_layers) == (4, 3)
    assert_parity(plain(config), params, read.outputs)


def test_encoder_and_pooler_match_golden_torch_bert_model(bert_directory):
    """Torch's BertModel, which has no heads, and names without `bert.`."""

    def bare(tensors):
        for name in list(tensors):
            tensor = tensors.pop(name)
            if name.startswith("bert."):
                tensors[name.removeprefix("bert.")] = tensor

    edit(bert_directory, bare)
    config, params = load(bert_directory, fresh=("mlm", "nsp"))
    torchs = load_outputs("poolers")
    model = ExBert(plain(config), jnp.float32)
    ids_bt = torchs["bert_ids_bt"]
    output = jax.jit(
        lambda params: model.apply(
            {"params": params}, ids_bt, np.zeros_like(ids_bt), ids_bt > 0, method=model.encode
        )
    )(params)
    np.testing.assert_allclose(output.last_hidden_btd, torchs["bert_last_hidden_btd"], atol=1e-5)
    pooler = Pooler(config, jnp.float32)
    pooled_bd = pooler.apply({"params": params["pooler"]}, output.last_hidden_btd)
    np.testing.assert_allclose(pooled_bd, torchs["bert_pooled_bd"], atol=1e-5)


# What a good checkpoint may look like


def test_names_with_and_without_prefix_and_of_old_age_are_one(bert_directory):
    _, expected = load(bert_directory)

    def age(tensors):
        for name in list(tensors):
            old = name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma")
            old = old.replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[old] = tensors.pop(name)
        tensors["embeddings.position_ids"] = np.arange(20)[None]
        tensors["cls.predictions.decoder.weight"] = tensors["embeddings.word_embeddings.weight"]
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].copy()

    edit(bert_directory, age)
    assert "cls.predictions.transform.LayerNorm.gamma" in load_file(
        bert_directory / "model.safetensors"
    )
    assert_trees_equal(load(bert_directory)[1], expected)


def test_bias_may_be_stored_under_the_decoders_name_only(bert_directory):
    _, expected = load(bert_directory)
    edit(
        bert_directory,
        lambda t: t.update({"cls.predictions.decoder.bias": t.pop("cls.predictions.bias")}),
    )
    assert_trees_equal(load(bert_directory)[1], expected)


def test_shards_are_read_as_one(bert_directory):
    _, expected = load(bert_directory)
    tensors = load_file(bert_directory / "model.safetensors")
    (bert_directory / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[:20], names[20:])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, bert_directory / file)
        weight_map |= dict.fromkeys(part, file)
    index = bert_directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert_trees_equal(load(bert_directory)[1], expected)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_precisions_become_float32(bert_directory, dtype):
    edit(bert_directory, lambda t: t.update({n: v.astype(dtype) for n, v in t.items()}))
    _, params = load(bert_directory)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    original = load_file(GOLDEN / "bert" / "model.safetensors")["bert.pooler.dense.bias"]
    expected = original.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(params["pooler"]["dense"]["bias"], expected)


@pytest.mark.parametrize("fresh", [(), ("mlm",), ("mlm", "nsp"), ("pooler", "mlm", "nsp")])
@pytest.mark.parametrize("present", [True, False])
def test_fresh_heads_are_left_out_whether_present_or_not(bert_directory, fresh, present):
    _, everything = load(bert_directory)
    prefixes = tuple(
        {"pooler": "bert.pooler", "mlm": "cls.pred", "nsp": "cls.seq"}[h] for h in fresh
    )
    if not present:
        edit(bert_directory, lambda t: [t.pop(n) for n in list(t) if n.startswith(prefixes or "?")])
    _, params = load(bert_directory, fresh=fresh)
    assert_trees_equal(params, {n: tree for n, tree in everything.items() if n not in fresh})


def test_dropout_rates_may_be_overridden():
    config_json = json.loads((GOLDEN / "bert" / "config.json").read_text())
    assert bert_config(config_json).hidden_dropout_prob == 0.1
    config = bert_config(config_json, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.2)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.0, 0.2)


# What a bad checkpoint is told


def test_every_missing_and_left_over_tensor_is_listed(bert_directory):
    gone = ["bert.encoder.layer.1.output.dense.weight", "bert.embeddings.LayerNorm.bias"]

    def damage(tensors):
        for name in gone:
            del tensors[name]
        tensors["classifier.weight"] = np.zeros((2, 24), np.float32)
        tensors["bert.encoder.layer.2.output.dense.bias"] = np.zeros(24, np.float32)

    edit(bert_directory, damage)
    with pytest.raises(ValueError, match="missing") as error:
        load(bert_directory)
    text = str(error.value)
    assert str(bert_directory) in text
    assert (
        "missing (2):\n  embeddings.LayerNorm.bias\n  encoder.layer.1.output.dense.weight" in text
    )
    assert "left over (2):\n  classifier.weight\n  encoder.layer.2.output.dense.bias" in text
    assert "fresh" not in text


def test_a_missing_head_is_told_the_option(bert_directory):
    edit(bert_directory, lambda t: [t.pop(n) for n in list(t) if n.startswith("cls.")])
    with pytest.raises(ValueError, match="missing") as error:
        load(bert_directory)
    assert "missing (7)" in str(error.value)
    assert "--config.teacher.random_heads=\"('mlm','nsp',)\"" in str(error.value)
    assert set(load(bert_directory, fresh=("mlm", "nsp"))[1]) == {"base", "pooler"}


def test_wrong_shapes_are_listed_with_got_and_expected(bert_directory):
    def damage(tensors):
        tensors["bert.pooler.dense.weight"] = np.zeros((24, 23), np.float32)
        tensors["bert.embeddings.word_embeddings.weight"] = np.zeros((70, 24), np.float32)
        tensors["bert.pooler.dense.bias"] = np.zeros(24, np.int8)

    edit(bert_directory, damage)
    with pytest.raises(ValueError, match=r"wrong \(3\)") as error:
        load(bert_directory)
    text = str(error.value)
    assert "pooler.dense.weight: got float32 [24, 23], expected floating-point [24, 24]" in text
    assert "word_embeddings.weight: got float32 [70, 24], expected floating-point [68, 24]" in text
    assert "pooler.dense.bias: got int8 [24], expected floating-point [24]" in text


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_decoder_that_is_not_tied_is_an_error(bert_directory, part):
    source = {"weight": "bert.embeddings.word_embeddings.weight", "bias": "cls.predictions.bias"}
    name = f"cls.predictions.decoder.{part}"
    edit(bert_directory, lambda t: t.update({name: t[source[part]] + 1}))
    with pytest.raises(ValueError, match=f"{name} differs .*fresh"):
        load(bert_directory)
    load(bert_directory, fresh=("mlm",))


def test_unknown_fresh_heads_are_an_error():
    with pytest.raises(ValueError, match=r"\['mlp'\]; it may name pooler, mlm, nsp"):
        load(GOLDEN / "bert", fresh=("mlp",))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "swish"),
        ("hidden_act", "relu"),
        ("position_embedding_type", "relative_key"),
        ("model_type", "nomic_bert"),
    ],
)
def test_other_kinds_of_model_are_an_error(key, value):
    config_json = json.loads((GOLDEN / "bert" / "config.json").read_text())
    with pytest.raises(ValueError, match=f"{key}='{value}', expected ('|one of)"):
        bert_config(config_json | {key: value})


def test_config_without_sizes_and_indivisible_heads_are_errors():
    with pytest.raises(ValueError, match="lacks vocab_size, hidden_size, .*intermediate_size"):
        bert_config({"model_type": "bert"})
    config_json = json.loads((GOLDEN / "bert" / "config.json").read_text())
    with pytest.raises(ValueError, match="hidden_size=24 is not divisible .*heads=5"):
        bert_config(config_json | {"num_attention_heads": 5})
    for name in ("num_hidden_layers", "intermediate_size"):
        with pytest.raises(ValueError, match=f"got {name}=0, expected 1 or more"):
            bert_config(config_json | {name: 0})


def test_a_norm_whose_epsilon_is_no_small_number_is_an_error():
    config_json = json.loads((GOLDEN / "bert" / "config.json").read_text())
    with pytest.raises(ValueError, match="got layer_norm_eps=2147483648, expected a small number"):
        bert_config(config_json | {"layer_norm_eps": 2147483648})


def test_vocabulary_of_another_size_is_an_error():
    convert.check_vocabulary(61, tiny_bert_config())
    convert.check_vocabulary(68, tiny_exbert_config())
    with pytest.raises(ValueError, match="tokenizer has 60 pieces.* 61 rows"):
        convert.check_vocabulary(60, tiny_bert_config())


def test_torch_file_without_torch_says_how_to_convert_it(bert_directory, monkeypatch):
    (bert_directory / "model.safetensors").rename(bert_directory / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(ValueError, match="torch is not installed.*python -c ") as error:
        load(bert_directory)
    command = str(error.value).split("run in that directory: ")[1]
    assert "\n" not in command


def test_directories_that_are_no_checkpoints_are_errors(bert_directory):
    (bert_directory / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="model.safetensors cannot be read"):
        load(bert_directory)
    (bert_directory / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has neither model.safetensors .* nor pytorch_model.bin"):
        load(bert_directory)
    (bert_directory / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json: .*Hugging Face layout"):
        load(bert_directory)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "/no/such/directory", "no such model"])
def test_hub_that_does_not_answer_is_one_line_with_the_option(name, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("the test opened a connection")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(
        ValueError, match="pass a local directory: --config.teacher.checkpoint"
    ) as e:
        hf_files.load_checkpoint(name)
    assert repr(name) in str(e.value)
    assert "\n" not in str(e.value)


# There and back


@pytest.mark.parametrize("added_words", [0, 7])
@pytest.mark.parametrize("blocks", [True, False])
def test_torch_names_round_trip_bit_for_bit(blocks, added_words):
    config = tiny_exbert_config(blocks=blocks, added_words=added_words)
    params = random_params(config)
    tensors = convert.to_torch_names(params, config)
    assert tensors["bert.embeddings.word_embeddings.weight"].shape == (61 + added_words, 24)
    assert ("bert.encoder.gate.1.weight" in tensors) == blocks
    assert_trees_equal(convert.from_torch_names(tensors, config), params)


def test_heads_may_be_left_out_of_a_round_trip():
    config = tiny_exbert_config()
    params = random_params(config)
    del params["nsp"], params["mlm"]
    tensors = convert.to_torch_names(params, config)
    assert not any(name.startswith("cls.") for name in tensors)
    assert_trees_equal(convert.from_torch_names(tensors, config, without=("mlm", "nsp")), params)
    with pytest.raises(ValueError, match="seq_relationship.bias"):
        convert.from_torch_names(tensors, config)


def test_parameters_of_another_model_are_not_written():
    config = tiny_exbert_config()
    params = random_params(config)
    without_extension = {name: tree for name, tree in params.items() if name != "extension"}
    with pytest.raises(ValueError, match="the parameters: .*\n(.*\n)*.*encoder.gate.0.bias"):
        convert.to_torch_names(without_extension, config)
    with pytest.raises(ValueError, match="left over(.*\n)*.*projection/kernel"):
        convert.to_torch_names(params | {"projection": {"kernel": np.zeros((2, 2))}}, config)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "names no file of weights"),
        ([], "names no file of weights"),
        ({"a": "../model.safetensors"}, r"names the file '../model.safetensors', which does not"),
        ({"a": "part-2.safetensors"}, "names the file 'part-2.safetensors', which does not lie"),
        ({"a": "s" * 300}, "names the file 's*', which does not lie"),
    ],
)
def test_an_index_that_names_no_files_beside_it_is_an_error(bert_directory, weight_map, message):
    (bert_directory / "model.safetensors").rename(bert_directory.parent / "model.safetensors")
    index = {"metadata": {}} | ({} if weight_map is None else {"weight_map": weight_map})
    (bert_directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        hf_files.load_checkpoint(str(bert_directory))


def test_a_git_lfs_pointer_is_told_from_a_damaged_file(bert_directory):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 437\n"
    (bert_directory / "model.safetensors").write_text(pointer)
    with pytest.raises(ValueError, match="is a Git LFS pointer .*git lfs pull"):
        hf_files.load_checkpoint(str(bert_directory))


def test_numbers_of_eight_bits_are_told_from_a_damaged_file(bert_directory):
    header = b'{"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}'
    content = len(header).to_bytes(8, "little") + header + bytes(2)
    (bert_directory / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="safetensors: got numbers that numpy does not have.*8 b"):
        hf_files.load_checkpoint(str(bert_directory))


@pytest.mark.parametrize("content", ["[]", "24", '"bert"'])
def test_a_config_json_that_is_no_object_is_named(bert_directory, content):
    (bert_directory / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json: got a JSON .*expected an object"):
        hf_files.load_checkpoint(str(bert_directory))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named_before_anything_is_done(bert_directory, value):
    name = "bert.encoder.layer.0.output.dense.weight"
    edit(bert_directory, lambda t: t[name].__setitem__((0, 1), value))
    with pytest.raises(ValueError, match=rf"NaN or infinity in 1 tensors \({name}\)"):
        hf_files.load_checkpoint(str(bert_directory))


def test_null_in_config_json_is_what_is_not_said():
    said = json.loads((GOLDEN / "bert" / "config.json").read_text())
    silent = {name: None for name in ("hidden_act", "layer_norm_eps", "is_decoder")}
    without = {name: value for name, value in said.items() if name not in silent}
    assert bert_config(said | silent) == bert_config(without)
    with pytest.raises(ValueError, match="config.json lacks hidden_size"):
        bert_config(said | {"hidden_size": None})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_size", "24", "hidden_size='24', expected a whole number"),
        ("num_hidden_layers", 2.0, "num_hidden_layers=2.0, expected a whole number"),
        ("num_hidden_layers", True, "num_hidden_layers=True, expected a whole number"),
        ("layer_norm_eps", "1e-12", "layer_norm_eps='1e-12', expected a number"),
        ("is_decoder", True, "is_decoder=true: pieces see only what is before them"),
        ("hidden_dropout_prob", 1.5, "hidden_dropout_prob=1.5, expected a share from 0 to below 1"),
        ("hidden_size", -24, "got hidden_size=-24, expected 1 or more"),
        ("num_hidden_layers", 0, "got num_hidden_layers=0, expected 1 or more"),
        ("vocab_size", 0, "got vocab_size=0, expected 1 or more"),
    ],
)
def test_values_of_config_json_that_cannot_be_are_named(key, value, message):
    said = json.loads((GOLDEN / "bert" / "config.json").read_text())
    with pytest.raises(ValueError, match=message):
        bert_config(said | {key: value})
