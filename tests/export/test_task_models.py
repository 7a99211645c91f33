# SPDX-License-Identifier: Apache-2.0
"""Fine-tuned models out and in again, what torch makes of them, and encoders to fine-tune."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edad_jax.export.huggingface import save_model
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier, Pooler
from edad_jax.models.pretrained import load_encoder, load_model, load_task_model, tokenizer_folder
from edad_jax.models.task import Task, read_task
from tests.golden_exports import INPUTS, write_and_check, write_as_torch_did
from tests.tiny_exports import CARD, LABELS, edit_json, labels_of, save, tuned, write_words
from tests.tiny_models import (
    GOLDEN,
    assert_trees_equal,
    tiny_batch,
    tiny_bert_config,
)

KINDS = ("tagging", "classification", "answering")
AUTO_CLASSES = {
    "answering": "AutoModelForQuestionAnswering",
    "tagging": "AutoModelForTokenClassification",
    "classification": "AutoModelForSequenceClassification",
}


@pytest.fixture
def tokenizer_dir(tmp_path):
    return write_words(tmp_path / "tokenizer")


@functools.cache
def encode(config):
    """Returns the last layer's output as one program, whatever sits on it."""
    net = ExBert(config, jnp.float32)
    return jax.jit(
        lambda params, *inputs: (
            net.apply({"params": params}, *inputs, method="encode").last_hidden_btd
        )
    )


def our_logits(kind, config, params, batch):
    """Returns what our modules compute without dropout."""
    encoder = {part: params[part] for part in ("base", "extension") if part in params}
    hidden = encode(config)(encoder, batch.ids_bt, batch.segments_bt, batch.mask_bt)
    if kind == "classification":
        hidden = Pooler(config.base, jnp.float32).apply({"params": params["pooler"]}, hidden)
    labels = params["classifier"]["dense"]["bias"].shape[0]
    classifier = Classifier(config.base, labels, jnp.float32)
    return classifier.apply({"params": params["classifier"]}, hidden, deterministic=True)


def edit(directory, *, tensors=None, **config):
    """Changes a model's tensors by `tensors(dict)`, and values of its config.json."""
    if tensors:
        values = load_file(directory / "model.safetensors")
        tensors(values)
        save_file(values, directory / "model.safetensors", metadata={"format": "pt"})
    edit_json(directory / "config.json", **config)


# The classifier


def test_classifier_drops_the_encoders_share_of_what_it_reads():
    config = tiny_bert_config(hidden_dropout_prob=0.5)
    classifier = Classifier(config, 1, jnp.float32)
    params = {"dense": {"kernel": jnp.ones((24, 1)), "bias": jnp.zeros(1)}}
    hidden = jnp.ones((50, 24))
    full = classifier.apply({"params": params}, hidden, deterministic=True)
    np.testing.assert_array_equal(full, np.full((50, 1), 24.0))
    rngs = {"dropout": jax.random.key(0)}
    dropped = classifier.apply({"params": params}, hidden, deterministic=False, rngs=rngs)
    assert len(np.unique(dropped)) > 5
    assert abs(np.mean(dropped) - 24) < 3


def test_classifier_gives_float32_logits_from_bfloat16():
    classifier = Classifier(tiny_bert_config(), 3, jnp.bfloat16)
    hidden = jnp.ones((2, 5, 24), jnp.bfloat16)
    logits, variables = classifier.init_with_output(jax.random.key(0), hidden, deterministic=True)
    assert (logits.dtype, logits.shape) == (jnp.float32, (2, 5, 3))
    assert jax.tree.map(jnp.shape, variables["params"]) == {
        "dense": {"kernel": (24, 3), "bias": (3,)}
    }


# There and back


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_fine_tuned_model_loads_back_bit_for_bit(tmp_path, tokenizer_dir, kind, blocks):
    config, params = save(tmp_path / "model", tokenizer_dir, kind, blocks=blocks)
    loaded_config, loaded, task = load_task_model(tmp_path / "model")
    assert loaded_config == config
    assert task == Task(kind, labels_of(kind))
    assert_trees_equal(loaded, params)
    assert (tmp_path / "model" / "modeling_exbert.py").is_file() == blocks


def test_labels_keep_their_numbers_beyond_ten(tmp_path, tokenizer_dir):
    config, params = tuned("classification")
    labels = tuple(f"class {number}" for number in range(12))
    params["classifier"] = {
        "dense": {"kernel": np.ones((24, 12), np.float32), "bias": np.arange(12.0, dtype="f4")}
    }
    task = Task("classification", labels)
    save_model(tmp_path / "model", params, config, tokenizer_dir, card=CARD, task=task)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))  # 0, 1, 10, 11, 2
    path.with_name("SHA256SUMS").unlink()
    assert load_task_model(tmp_path / "model")[2] == task


@pytest.mark.parametrize(
    ("kind", "pipeline"),
    [("tagging", "token-classification"), ("classification", "text-classification")],
)
def test_card_names_the_pipeline_and_the_auto_class(tmp_path, tokenizer_dir, kind, pipeline):
    save(tmp_path / "model", tokenizer_dir, kind)
    text = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert f'pipeline_tag: "{pipeline}"' in text
    assert f"from transformers import {AUTO_CLASSES[kind]}, AutoTokenizer" in text
    assert f'{AUTO_CLASSES[kind]}.from_pretrained("DIRECTORY", trust_remote_code=True)' in text


# What torch makes of ours, and we of torch's


def assert_torchs_logits(kind, read, config, params):
    """Asserts that torch computed our logits, at real pieces."""
    outputs = read.outputs
    batch = tiny_batch(config.vocab_size)._replace(**{name: outputs[name] for name in INPUTS})
    ours = np.asarray(our_logits(kind, config, params, batch))
    assert ours.shape == outputs["logits"].shape
    where = slice(None) if kind == "classification" else batch.mask_bt
    np.testing.assert_allclose(ours[where], outputs["logits"][where], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("net", ["exbert", "bert"])
@pytest.mark.parametrize("kind", KINDS)
def test_auto_model_gives_our_logits(tmp_path, kind, net):
    (tmp_path / "ours").mkdir()
    read = write_and_check(f"{net} for {kind}", tmp_path / "ours")
    end = AUTO_CLASSES[kind].removeprefix("AutoModel")
    assert read.opened_by == {"exbert": "ExBert", "bert": "Bert"}[net] + end
    assert_torchs_logits(kind, read, read.config, read.params)
    (tmp_path / "again").mkdir()
    again = write_as_torch_did(f"{net} for {kind}", tmp_path / "again")
    loaded_config, loaded, task = load_task_model(again.folder)
    assert (loaded_config, task) == (read.config, read.task)
    assert_trees_equal(loaded, read.params)


@pytest.mark.parametrize("kind", KINDS)
def test_fine_tuned_bert_of_torch_is_read(tmp_path, kind):
    read = write_as_torch_did(f"torch's bert for {kind}", tmp_path)
    config, params, task = load_task_model(read.folder)
    assert task == read.task
    assert_torchs_logits(kind, read, config, params)
    _, encoder, fresh = load_encoder(str(read.folder), with_pooler=True)
    assert fresh == (kind != "classification")
    del params["classifier"]
    assert_trees_equal(encoder, params)


# Encoders to fine-tune


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("with_pooler", [True, False])
def test_encoder_of_our_student_leaves_the_other_heads(
    tmp_path, tokenizer_dir, with_pooler, blocks
):
    config, params = save(tmp_path / "student", tokenizer_dir, blocks=blocks)
    loaded_config, loaded, fresh = load_encoder(str(tmp_path / "student"), with_pooler=with_pooler)
    assert loaded_config == config
    assert not fresh
    parts = ("base", "extension", "pooler") if with_pooler else ("base", "extension")
    assert_trees_equal(loaded, {part: params[part] for part in parts})


def test_encoder_of_a_tagger_lacks_a_pooler_and_its_classifier_stays_behind(
    tmp_path, tokenizer_dir
):
    _, params = save(tmp_path / "model", tokenizer_dir, "tagging")
    del params["classifier"]
    for with_pooler in (True, False):
        _, loaded, fresh = load_encoder(str(tmp_path / "model"), with_pooler=with_pooler)
        assert fresh == with_pooler
        assert_trees_equal(loaded, params)


@pytest.mark.parametrize("ours", [True, False])
def test_dropout_rates_of_an_encoder_may_be_overridden(tmp_path, tokenizer_dir, ours):
    path = str(GOLDEN / "bert")
    if ours:
        save(tmp_path / "student", tokenizer_dir)
        path = str(tmp_path / "student")
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": None}
    config, _, _ = load_encoder(path, with_pooler=False, **rates)
    assert config.base.hidden_dropout_prob == 0.0
    assert config.base.attention_probs_dropout_prob == 0.1
    assert config == load_encoder(path, with_pooler=True, **rates)[0]


@pytest.fixture
def bert_directory(tmp_path):
    """A copy of the golden BertForPreTraining that a test may change."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bert").mkdir(exist_ok=True)
        shutil.copyfile(GOLDEN / "bert" / name, tmp_path / "bert" / name)
    return tmp_path / "bert"


def test_encoder_of_any_bert_is_the_same_with_and_without_prefix_and_heads(bert_directory):
    config, expected, fresh = load_encoder(str(bert_directory), with_pooler=True)
    assert (set(expected), fresh) == ({"base", "pooler"}, False)
    assert (config.extension, config.extension_vocab_size) == (None, 0)

    def strip(tensors):
        for name in list(tensors):
            tensor = tensors.pop(name)
            if name.startswith("bert."):
                tensors[name.removeprefix("bert.")] = tensor
        tensors["qa_outputs.weight"] = np.zeros((2, 24), np.float32)

    edit(bert_directory, tensors=strip)
    again, params, fresh = load_encoder(str(bert_directory), with_pooler=True)
    assert (again, fresh) == (config, False)
    assert_trees_equal(params, expected)


def test_untied_decoder_does_not_matter_to_an_encoder(bert_directory):
    _, expected, _ = load_encoder(str(bert_directory), with_pooler=False)
    table = np.zeros((68, 24), np.float32)
    edit(bert_directory, tensors=lambda t: t.update({"cls.predictions.decoder.weight": table}))
    assert_trees_equal(load_encoder(str(bert_directory), with_pooler=False)[1], expected)


def test_what_an_encoder_lacks_or_has_too_much_is_listed(bert_directory):
    def damage(tensors):
        for name in [name for name in tensors if ".layer.1.output." in name]:
            del tensors[name]
        tensors["bert.encoder.layer.2.output.dense.bias"] = np.zeros(24, np.float32)
        tensors["bert.embeddings.LayerNorm.bias"] = np.zeros(23, np.float32)
        del tensors["bert.pooler.dense.bias"]  # half a pooler is none to start afresh

    edit(bert_directory, tensors=damage)
    with pytest.raises(ValueError, match="missing") as error:
        load_encoder(str(bert_directory), with_pooler=True)
    text = str(error.value)
    assert str(bert_directory) in text
    assert "missing (5):\n  encoder.layer.1.output.LayerNorm.bias\n" in text
    assert "  pooler.dense.bias\n" in text
    assert "left over (1):\n  encoder.layer.2.output.dense.bias" in text
    assert "embeddings.LayerNorm.bias: got float32 [23], expected floating-point [24]" in text
    assert "config.teacher" not in text
    with pytest.raises(ValueError, match=r"missing \(4\)"):
        load_encoder(str(bert_directory), with_pooler=False)


def test_model_that_is_not_found_is_told_the_callers_option(tmp_path):
    missing = str(tmp_path / "nothing")
    for load, option in (
        (lambda: load_encoder(missing, with_pooler=False), "--config.model=DIR"),
        (lambda: load_task_model(missing, option="--model=DIR"), "--model=DIR"),
        (lambda: tokenizer_folder(missing), "--config.model=DIR"),
    ):
        with pytest.raises(ValueError, match=f"pass a local directory: {option}$"):
            load()
    assert tokenizer_folder(str(tmp_path)) == tmp_path


# Bad input


def test_pretrained_models_are_no_task_models_nor_the_other_way_round(tmp_path, tokenizer_dir):
    save(tmp_path / "student", tokenizer_dir)
    with pytest.raises(ValueError, match="ExBertForPreTraining.*pass a fine-tuned model"):
        load_task_model(tmp_path / "student")
    save(tmp_path / "model", tokenizer_dir, "tagging")
    with pytest.raises(ValueError, match="left over(.*\n)*  classifier.weight"):
        load_model(tmp_path / "model", without=("pooler", "mlm", "nsp"))


def test_labels_must_be_one_for_each_class(tmp_path, tokenizer_dir):
    save(tmp_path / "model", tokenizer_dir, "tagging")
    edit(tmp_path / "model", architectures=[5, None, "BertForTokenClassification"])
    edit(tmp_path / "model", id2label=None)
    task = load_task_model(tmp_path / "model")[2]
    assert task.labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
    edit(tmp_path / "model", id2label=list("OBIX"))  # in the order of their numbers
    assert load_task_model(tmp_path / "model")[2].labels == ("O", "B", "I", "X")
    for id2label in ({"O": 0, "B": 1, "I": 2, "X": 3}, "OBIX"):
        edit(tmp_path / "model", id2label=id2label)
        with pytest.raises(ValueError, match="expected the name of each class by its number"):
            load_task_model(tmp_path / "model")
    for id2label in ({"0": "O", "1": "B"}, dict(enumerate("OBBI")), dict(enumerate("OBIX", 1))):
        edit(tmp_path / "model", id2label=id2label)
        with pytest.raises(ValueError, match="the classifier has 4 classes"):
            load_task_model(tmp_path / "model")
    edit(tmp_path / "model", id2label=None, tensors=lambda t: t.pop("classifier.bias"))
    with pytest.raises(ValueError, match="the classifier has 0 classes"):
        load_task_model(tmp_path / "model")


def test_classes_that_do_not_exclude_each_other_are_an_error(tmp_path, tokenizer_dir):
    save(tmp_path / "model", tokenizer_dir, "classification")
    edit(tmp_path / "model", problem_type="multi_label_classification")
    with pytest.raises(ValueError, match="problem_type='multi_label_classification'"):
        load_task_model(tmp_path / "model")


def test_models_that_do_not_fit_their_task_are_not_written(tmp_path, tokenizer_dir):
    with pytest.raises(ValueError, match="'parsing', expected tagging or classification"):
        save(tmp_path / "model", tokenizer_dir, "parsing")
    with pytest.raises(ValueError, match=r"\['O', 'O'\], expected at least one, each once"):
        save(tmp_path / "model", tokenizer_dir, "tagging", labels=("O", "O"))
    with pytest.raises(ValueError, match=r"classifier.bias: got float32 \[4\], .* \[3\]"):
        save(tmp_path / "model", tokenizer_dir, "tagging", labels=LABELS[:3])
    config, params = tuned("classification")
    with pytest.raises(ValueError, match=r"tagging model with heads \['pooler'\], expected \[\]"):
        save_model(
            tmp_path / "model",
            params,
            config,
            tokenizer_dir,
            card=CARD,
            task=Task("tagging", "OBIX"),
        )
    with pytest.raises(ValueError, match="left over(.*\n)*  classifier"):
        save_model(tmp_path / "model", params, config, tokenizer_dir, card=CARD)
    assert not (tmp_path / "model").exists()


SBERT = "torch.nn.modules."
ONE = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}


@pytest.mark.parametrize(
    ("said", "activation"),
    [
        ({}, "sigmoid"),  # as transformers' pipeline and sentence-transformers have it
        ({"problem_type": "regression"}, "identity"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"sbert_ce_default_activation_function": f"{SBERT}linear.Identity"}, "identity"),
        ({"sentence_transformers": {"activation_fn": f"{SBERT}linear.Identity"}}, "identity"),
        ({"sentence_transformers": {"activation_fn": f"{SBERT}activation.Sigmoid"}}, "sigmoid"),
        ({"sentence_transformers": {"version": "4.1.0"}}, "sigmoid"),
    ],
)
def test_a_model_with_one_output_gives_the_score_that_its_files_say(said, activation):
    assert read_task(ONE | said, classes=1) == Task("classification", ("LABEL_0",), activation)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"problem_type": "single_label_classification"}, "would say the same of every text"),
        ({"sentence_transformers": {"activation_fn": f"{SBERT}activation.Tanh"}}, "Tanh"),
        ({"sbert_ce_default_activation_function": "mine.Sigmoid"}, "others are not known here"),
        (
            {
                "problem_type": "regression",
                "sbert_ce_default_activation_function": f"{SBERT}activation.Sigmoid",
            },
            "take out the one that is wrong",
        ),
    ],
)
def test_one_output_of_which_nobody_knows_the_meaning_is_refused(said, says):
    with pytest.raises(ValueError, match=says):
        read_task(ONE | said, classes=1)


def test_two_outputs_are_classes():
    said = ONE | {"id2label": {"0": "no", "1": "yes"}}
    assert read_task(said, classes=2) == Task("classification", ("no", "yes"))
    with pytest.raises(ValueError, match="problem_type='regression'"):
        read_task(said | {"problem_type": "regression"}, classes=2)
