# SPDX-License-Identifier: Apache-2.0
"""Exported models: what we load back, what torch makes of them, and what a kill leaves."""

import contextlib
import errno
import importlib.resources
import json
import os
import resource
import shutil
import sys

import numpy as np
import pytest

from edad_jax.export import huggingface
from edad_jax.export.huggingface import save_model
from edad_jax.models import config_json, convert, hf_files
from edad_jax.models.pretrained import load_model
from tests.tiny_exports import CARD, save, write_words
from tests.tiny_models import (
    GOLDEN,
    assert_parity,
    assert_trees_equal,
    load_golden,
    random_params,
    tiny_bert_config,
    tiny_exbert_config,
)


@pytest.fixture
def tokenizer_dir(tmp_path):
    return write_words(tmp_path / "tokenizer")


@contextlib.contextmanager
def remote_code(monkeypatch, tmp_path):
    """Lets transformers run a model's code, from a cache of its own."""
    dynamic = pytest.importorskip("transformers.dynamic_module_utils")
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [str(tmp_path / "modules"), *sys.path])
    yield {"trust_remote_code": True, "output_loading_info": True}


def as_torch(outputs):
    """Returns golden inputs as a torch model wants them."""
    import torch

    return {
        "input_ids": torch.from_numpy(outputs["ids_bt"]).long(),
        "token_type_ids": torch.from_numpy(outputs["segments_bt"]).long(),
        "attention_mask": torch.from_numpy(outputs["mask_bt"]).long(),
    }


def nothing_odd(loading_info):
    """Asserts that no tensor was missing, unexpected or of another shape."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not loading_info[kind], (kind, loading_info[kind])


# There and back


@pytest.mark.parametrize("blocks", [True, False])
def test_saved_model_loads_back_bit_for_bit(tmp_path, tokenizer_dir, blocks):
    config, params = save(tmp_path / "student", tokenizer_dir, blocks=blocks)
    loaded_config, loaded = load_model(tmp_path / "student")
    assert loaded_config == config
    assert_trees_equal(loaded, params)
    names = {path.name for path in (tmp_path / "student").iterdir()}
    expected = {"config.json", "model.safetensors", "README.md", "vocab.txt", "tokenizer.json"}
    expected |= {"tokenizer_config.json"} | ({"modeling_exbert.py"} if blocks else set())
    assert names == expected
    assert {path.name for path in tmp_path.iterdir()} == {"student", "tokenizer"}


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


# What torch computed, and computes


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


@pytest.mark.parametrize("blocks", [True, False])
def test_auto_model_gives_our_logits(tmp_path, tokenizer_dir, monkeypatch, blocks):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tests.golden.make_bert_golden import run

    config, params = save(tmp_path / "student", tokenizer_dir, blocks=blocks)
    with remote_code(monkeypatch, tmp_path) as options:
        if not blocks:
            options["trust_remote_code"] = False
            options["attn_implementation"] = "eager"
        model, info = transformers.AutoModelForPreTraining.from_pretrained(
            tmp_path / "student", **options
        )
        nothing_odd(info)
        assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
        outputs = run(model.eval(), rows=4, length=17)
        assert_parity(config, params, outputs)
        encoder, info = transformers.AutoModel.from_pretrained(tmp_path / "student", **options)
        assert not info["missing_keys"]
        with torch.no_grad():
            last = encoder.eval()(**as_torch(outputs)).last_hidden_state.numpy()
    mask_bt = outputs["mask_bt"]
    np.testing.assert_allclose(last[mask_bt], outputs["hidden_2_btd"][mask_bt], atol=1e-6)


def test_modelling_file_serves_every_auto_class(tmp_path, tokenizer_dir, monkeypatch):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    save(tmp_path / "student", tokenizer_dir)
    inputs = as_torch(load_golden("exbert"))
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    with remote_code(monkeypatch, tmp_path) as options:

        def load(auto_class):
            model, info = getattr(transformers, auto_class).from_pretrained(
                tmp_path / "student", **options
            )
            return model.eval(), info

        encoder, info = load("AutoModel")
        nothing_odd(info)
        output = encoder(**inputs, output_attentions=True, output_hidden_states=True)
        assert output.pooler_output.shape == (2, 24)
        assert len(output.hidden_states) == 3
        assert [tuple(weights.shape) for weights in output.attentions] == [(2, 6, 10, 10)] * 2
        torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(2, 6, 10))
        by_position = encoder(**inputs, return_dict=False)
        torch.testing.assert_close(by_position[0], output.last_hidden_state)

        masked, info = load("AutoModelForMaskedLM")
        nothing_odd(info)
        output = masked(**inputs, labels=labels)
        expected = -output.logits.log_softmax(-1)[labels >= 0]
        expected = expected.gather(1, labels[labels >= 0][:, None]).mean()
        torch.testing.assert_close(output.loss, expected)

        both, info = load("AutoModelForPreTraining")
        nothing_odd(info)
        next_sentence = torch.tensor([0, 1])
        pretraining = both(**inputs, labels=labels, next_sentence_label=next_sentence)
        sentence_loss = -pretraining.seq_relationship_logits.log_softmax(-1)
        expected = expected + sentence_loss[torch.arange(2), next_sentence].mean()
        torch.testing.assert_close(pretraining.loss, expected)
        torch.testing.assert_close(pretraining.prediction_logits, output.logits)

        tagger, info = load("AutoModelForTokenClassification")
        assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
        tagger(**inputs, labels=labels.clamp(max=1)).loss.backward()
        assert tagger.classifier.weight.grad.abs().sum() > 0
        classifier, info = load("AutoModelForSequenceClassification")
        assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
        assert classifier(**inputs, labels=next_sentence).logits.shape == (2, 2)


def test_what_torch_saves_we_load(tmp_path, tokenizer_dir, monkeypatch):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config, params = save(tmp_path / "student", tokenizer_dir)
    with remote_code(monkeypatch, tmp_path) as options:
        model, _ = transformers.AutoModelForPreTraining.from_pretrained(
            tmp_path / "student", **options
        )
        model.save_pretrained(tmp_path / "again")
    loaded_config, loaded = load_model(tmp_path / "again")
    assert loaded_config == config
    assert_trees_equal(loaded, params)


def test_auto_tokenizer_reads_the_exported_vocabulary(tmp_path, tokenizer_dir, monkeypatch):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")  # the code of the model imports it
    save(tmp_path / "student", tokenizer_dir)
    with remote_code(monkeypatch, tmp_path):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            tmp_path / "student", trust_remote_code=True
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
    with pytest.raises(ValueError, match="neither tokenizer.json nor vocab.txt"):
        save_model(*other, card=CARD)
    assert_trees_equal(load_model(tmp_path / "student")[1], params)


def test_other_models_are_not_loaded(tmp_path):
    with pytest.raises(ValueError, match="is not a directory"):
        load_model(tmp_path / "nothing")
    shutil.copytree(GOLDEN / "exbert", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="model_type='gpt2', expected 'bert', .* or 'exbert'"):
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
