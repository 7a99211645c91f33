# SPDX-License-Identifier: Apache-2.0
"""Exported models: what we load back, what torch makes of them, and what a kill leaves."""

import errno
import importlib.resources
import json
import os
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.distillation import losses
from edad_jax.export import huggingface
from edad_jax.export.huggingface import save_model
from edad_jax.models import config_json, convert, hf_files
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Pooler
from edad_jax.models.pretrained import load_model
from edad_jax.types import MaskedBatch
from tests.golden_exports import write_and_check, write_as_torch_did
from tests.tiny_exports import CARD, save, write_words
from tests.tiny_models import (
    GOLDEN,
    assert_parity,
    assert_trees_equal,
    load_golden,
    random_params,
    raw_scores,
    tiny_bert_config,
    tiny_exbert_config,
)


@pytest.fixture
def tokenizer_dir(tmp_path):
    return write_words(tmp_path / "tokenizer")


# There and back


@pytest.mark.parametrize("blocks", [True, False])
def test_saved_model_loads_back_bit_for_bit(tmp_path, tokenizer_dir, blocks):
    config, params = save(tmp_path / "student", tokenizer_dir, blocks=blocks)
    loaded_config, loaded = load_model(tmp_path / "student")
    assert loaded_config == config
    assert_trees_equal(loaded, params)
    names = {path.name for path in (tmp_path / "student").iterdir()}
    expected = {"config.json", "model.safetensors", "README.md", "vocab.txt", "tokenizer.json"}
    expected |= {"tokenizer_config.json", "SHA256SUMS"} | (
        {"modeling_exbert.py"} if blocks else set()
    )
    assert names == expected
    assert {path.name for path in tmp_path.iterdir()} == {"student", "tokenizer"}


def test_how_parameters_lie_in_memory_is_not_seen_in_the_file(tmp_path, tokenizer_dir):
    config, params = save(tmp_path / "student", tokenizer_dir)
    backwards = jax.tree.map(lambda x: x[..., ::-1].copy()[..., ::-1], params)
    by_columns = jax.tree.map(np.asfortranarray, params)
    for name, same in {"backwards": backwards, "by_columns": by_columns}.items():
        save_model(tmp_path / name, same, config, tokenizer_dir, card=CARD)
        for file in (tmp_path / "student").iterdir():
            assert (tmp_path / name / file.name).read_bytes() == file.read_bytes(), file.name


def test_plain_student_is_a_teacher_to_the_next(tmp_path, tokenizer_dir):
    _, params = save(tmp_path / "student", tokenizer_dir, blocks=False)
    checkpoint = hf_files.load_checkpoint(str(tmp_path / "student"))
    config = config_json.bert_config(checkpoint.config)
    assert config.vocab_size == 68
    loaded = convert.bert_params(checkpoint, config)
    joint_vd = np.concatenate(
        [
            params["base"]["embeddings"]["word"]["embedding"],
            params["extension"]["word"]["embedding"],
        ]
    )
    np.testing.assert_array_equal(loaded["base"]["embeddings"]["word"]["embedding"], joint_vd)


def test_card_holds_front_matter_and_figures(tmp_path, tokenizer_dir):
    yaml = pytest.importorskip("yaml")
    save(tmp_path / "student", tokenizer_dir)
    text = (tmp_path / "student" / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["license"] == "apache-2.0"
    assert values["language"] == "en"
    assert values["library_name"] == "transformers"
    assert "# A tiny student" in body
    assert "| mlm_accuracy | 0.123457 |" in body
    assert "| corpus | none \\| nothing |" in body
    assert "| student.hidden_size | 24 |" in body


def test_padding_id_comes_from_the_vocabulary(tmp_path, tokenizer_dir):
    save(tmp_path / "student", tokenizer_dir)
    values = json.loads((tmp_path / "student" / "config.json").read_text())
    assert values["pad_token_id"] == 1


def test_code_of_the_model_is_part_of_the_package():
    code = importlib.resources.files("edad_jax.export") / "modeling_exbert.py"
    assert "class ExBertForPreTraining" in code.read_text(encoding="utf-8")


# What torch computed


def test_exbert_matches_golden_torch():
    config, params = load_model(GOLDEN / "exbert")
    assert config == tiny_exbert_config()
    assert_parity(config, params, load_golden("exbert"))


def test_golden_parity_notices_a_swapped_gate():
    config, params = load_model(GOLDEN / "exbert")
    gates = params["extension"]
    gates["gates_0"], gates["gates_1"] = gates["gates_1"], gates["gates_0"]
    with pytest.raises(AssertionError, match="hidden_1_btd"):
        assert_parity(config, params, load_golden("exbert"))


@pytest.mark.parametrize("name", ["exbert", "bert"])
def test_auto_model_gives_our_logits(tmp_path, name):
    read = write_and_check(name, tmp_path)
    assert read.opened_by == {"exbert": "ExBert", "bert": "Bert"}[name] + "ForPreTraining"
    assert_parity(read.config, read.params, read.outputs)


def test_losses_attention_and_pooled_vectors_of_the_modelling_file_are_ours(tmp_path):
    read = write_and_check("exbert", tmp_path)
    ids_bt, segments_bt, mask_bt = (
        read.outputs[name] for name in ("ids_bt", "segments_bt", "mask_bt")
    )
    rows, length = ids_bt.shape
    everywhere = MaskedBatch(
        ids_bt,
        segments_bt,
        mask_bt,
        masked_positions_bm=np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        masked_labels_bm=ids_bt,
        masked_weights_bm=mask_bt.astype(np.float32),
        next_sentence_b=np.arange(rows, dtype=np.int32),
    )
    net = ExBert(read.config, jnp.float32)
    variables = {"params": read.params}
    output, mlm_logits, nsp_logits_bc = jax.jit(
        lambda variables: net.apply(variables, everywhere, taps=(0, 1))
    )(variables)
    mlm = losses.mlm_loss(mlm_logits, everywhere).sum() / mask_bt.sum()
    np.testing.assert_allclose(mlm, read.outputs["mlm_loss"], rtol=1e-5)
    nsp = losses.nsp_loss(nsp_logits_bc, everywhere).mean()
    np.testing.assert_allclose(mlm + nsp, read.outputs["pretraining_loss"], rtol=1e-5)
    pooled_bd = Pooler(read.config.base, jnp.float32).apply(
        {"params": read.params["pooler"]}, output.last_hidden_btd
    )
    np.testing.assert_allclose(pooled_bd, read.outputs["pooled_bd"], atol=1e-5)
    for layer, scores_bhts in enumerate(raw_scores(output)):
        weights_bhts = jax.nn.softmax(jnp.where(mask_bt[:, None, None], scores_bhts, -1e4))
        expected_bhts = read.outputs[f"weights_{layer}_bhts"]
        assert expected_bhts.shape == (rows, 6, length, length)  # three heads, three added ones
        for row, real in enumerate(mask_bt.sum(1)):
            np.testing.assert_allclose(
                weights_bhts[row, :, :real], expected_bhts[row, :, :real], atol=1e-6
            )


def test_what_torch_saves_we_load(tmp_path):
    read = write_as_torch_did("exbert", tmp_path)
    loaded_config, loaded = load_model(read.folder)
    assert loaded_config == read.config
    assert_trees_equal(loaded, read.params)


@pytest.mark.parametrize("blocks", [True, False])
def test_transformers_tokenizer_reads_the_exported_vocabulary(tmp_path, tokenizer_dir, blocks):
    transformers = pytest.importorskip("transformers")
    save(tmp_path / "student", tokenizer_dir, blocks=blocks)
    # Beside an exBERT's code AutoTokenizer imports that code, and so torch; it then takes the class
    # that is named here.
    values = json.loads((tmp_path / "student" / "tokenizer_config.json").read_text())
    named = getattr(transformers, values["tokenizer_class"])
    tokenizer = (named if blocks else transformers.AutoTokenizer).from_pretrained(
        tmp_path / "student"
    )
    assert tokenizer("Word0 word62")["input_ids"] == [2, 5, 67, 3]


# Bad input, and what is left when writing stops half-way


def test_tokenizer_of_another_size_is_an_error_and_changes_nothing(tmp_path, tokenizer_dir):
    config, params = save(tmp_path / "student", tokenizer_dir)
    with open(tokenizer_dir / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("one-more\n")
    other = tmp_path / "student", random_params(config, 1), config, tokenizer_dir
    with pytest.raises(ValueError, match="tokenizer has 69 pieces.* 68 rows"):
        save_model(*other, card=CARD)
    (tokenizer_dir / "vocab.txt").unlink()
    with pytest.raises(ValueError, match="neither vocab.txt nor tokenizer.json"):
        save_model(*other, card=CARD)
    assert_trees_equal(load_model(tmp_path / "student")[1], params)


def test_other_models_are_not_loaded(tmp_path):
    with pytest.raises(ValueError, match="is not a directory"):
        load_model(tmp_path / "nothing")
    shutil.copytree(GOLDEN / "exbert", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="model_type='gpt2', expected one of bert, .*, exbert"):
        load_model(tmp_path / "model")
    del values["extension_hidden_size"]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="lacks 'extension_hidden_size'"):
        load_model(tmp_path / "model")


class Killed(BaseException):
    """Something that no handler expects."""


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Killed()])
@pytest.mark.parametrize("step", ["tensors", "tokenizer", "card", "flush", "rename 1", "rename 2"])
def test_the_old_model_stays_whole_whatever_stops_the_new_one(
    tmp_path, tokenizer_dir, monkeypatch, step, error
):
    config, params = save(tmp_path / "student", tokenizer_dir)
    before = {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}
    left = int(step[-1]) if step[-1].isdigit() else 1
    really_rename = os.rename

    def stop(*args, **kwargs):
        nonlocal left
        left -= 1
        if left == 0:
            raise error
        return really_rename(*args, **kwargs)

    place = {
        "tensors": (huggingface, "save_file"),
        "tokenizer": (shutil, "copyfile"),
        "card": (huggingface, "readme"),
        "flush": (os, "fsync"),
    }.get(step, (os, "rename"))
    with monkeypatch.context() as patch:
        patch.setattr(*place, stop)
        with pytest.raises(type(error)) as raised:
            save(tmp_path / "student", tokenizer_dir, seed=1)
    if isinstance(error, OSError):
        assert "cannot write" in str(raised.value)
        assert "No space left on device" in str(raised.value)
    after = {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}
    assert after == before
    assert {path.name for path in tmp_path.iterdir()} == {"student", "tokenizer"}
    _, params = save(tmp_path / "student", tokenizer_dir, seed=1)
    assert_trees_equal(load_model(tmp_path / "student")[1], params)


def test_a_kill_between_the_two_renames_is_mended_by_whoever_comes_next(tmp_path, tokenizer_dir):
    config, params = save(tmp_path / "student", tokenizer_dir)
    os.rename(tmp_path / "student", tmp_path / ".student.old")
    assert_trees_equal(load_model(tmp_path / "student")[1], params)
    os.rename(tmp_path / "student", tmp_path / ".student.old")
    _, params = save(tmp_path / "student", tokenizer_dir, seed=1)
    assert_trees_equal(load_model(tmp_path / "student")[1], params)
    assert {path.name for path in tmp_path.iterdir()} == {"student", "tokenizer"}


def test_a_file_that_does_not_fit_the_disk_leaves_the_old_model(tmp_path, tokenizer_dir):
    config, params = save(tmp_path / "student", tokenizer_dir)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))  # the tensors take 76,000 bytes
    try:
        with pytest.raises(OSError, match="cannot write .*unchanged"):
            save(tmp_path / "student", tokenizer_dir, seed=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_trees_equal(load_model(tmp_path / "student")[1], params)
    assert {path.name for path in tmp_path.iterdir()} == {"student", "tokenizer"}


def test_a_place_that_cannot_be_written_is_named(tmp_path, tokenizer_dir):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*file/student"):
        save(tmp_path / "file" / "student", tokenizer_dir)


def test_indivisible_heads_in_an_exported_config_are_an_error(tmp_path):
    shutil.copytree(GOLDEN / "exbert", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"extension_hidden_size": 13}))
    with pytest.raises(ValueError, match="extension hidden_size=13 is not divisible"):
        load_model(tmp_path / "model")
    assert tiny_bert_config().num_attention_heads == 3
