# SPDX-License-Identifier: Apache-2.0
"""Whole runs of the other families: they teach, are adapted, tuned and exported.

An ALBERT teaches a DistilBERT; a RoBERTa and an ELECTRA become exBERTs and teach a BERT each, an
MPNet teaches an MPNet.
"""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer

from edad_jax import types
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.data.vocabulary import split_added_words
from edad_jax.distillation.train import train
from edad_jax.export import check, formats
from edad_jax.export.graph import INPUTS
from edad_jax.models import convert, pretrained
from edad_jax.models.config import ExBertConfig
from edad_jax.models.config_json import sizes_json
from edad_jax.runtime import models
from edad_jax.tasks.finetune import finetune
from edad_jax.training.metrics import read_metrics
from tests.tiny_models import random_params, tiny_bert_config
from tests.tiny_run import run_of, tiny_config, write_corpus
from tests.tiny_tasks import tiny_tuning, write_labelled, write_tagging
from tests.tiny_text import make_documents
from tests.tiny_tokenizers import write_kind

DISTILBERT = {"type_vocab_size": 0, "has_pooler": False}
ALBERT = {"shares_layers": True, "embedding_size": 16, "hidden_act": "gelu_new"}
# As the byte-level and the WordPiece tokenizer below have their padding pieces.
ROBERTA = {"family": "roberta", "position_offset": 2, "type_vocab_size": 1, "has_pooler": False}
ELECTRA = {"family": "electra", "embedding_size": 16, "has_pooler": False}
MPNET = {"family": "mpnet", "position_offset": 2, "type_vocab_size": 0, "has_pooler": False}
MPNET |= {"relative_attention_num_buckets": 32, "kind": "mpnet"}
COMPARE = {"rows": 24, "batch_size": 4, "progress": False}


def write_model(folder, heads, *, kind="wordpiece", **options):
    """Returns a folder with a random model of a family, a tokenizer of some kind beside it."""
    pieces = len(load_tokenizer(write_kind(kind, folder)))
    base = tiny_bert_config(
        vocab_size=pieces, max_position_embeddings=40, initializer_range=0.02, **options
    )
    config = ExBertConfig(base, None, 0)
    (folder / "config.json").write_text(json.dumps(sizes_json(base, extended=False)))
    params = {part: tree for part, tree in random_params(config).items() if part in heads}
    save_file(convert.to_torch_names(params, config), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A DistilBERT that began with its ALBERT teacher and was trained for three updates."""
    inputs = tmp_path_factory.mktemp("families")
    write_corpus(inputs / "corpus.txt")
    write_model(inputs / "teacher", ("base", "pooler", "mlm"), **ALBERT)
    config = tiny_config(
        inputs,
        method="distillation",
        max_steps=3,
        vocabulary__size=0,
        teacher__random_heads=("nsp",),
        teacher__extension__hidden_size=0,
        student__extension__hidden_size=0,
        student__hidden_size=24,
        student__init="teacher",
        **{f"student__{name}": value for name, value in DISTILBERT.items()},
    )
    workdir = inputs / "run"
    return SimpleNamespace(inputs=inputs, workdir=workdir, summary=train(config, str(workdir)))


def test_an_albert_teaches_a_distilbert(taught):
    values = json.loads((taught.workdir / "student" / "config.json").read_text())
    assert values["model_type"] == "distilbert"
    assert values["architectures"] == ["DistilBertForMaskedLM"]
    config, params = pretrained.load_model(taught.workdir / "student")
    assert set(params) == {"base", "mlm"}
    assert config.base.type_vocab_size == 0
    end = taught.summary["heldout"]["end"]
    assert "heldout/student_mlm_accuracy" in end
    assert "heldout/student_nsp_accuracy" not in end
    lines = [line for line in read_metrics(taught.workdir / "metrics.jsonl") if "loss" in line]
    assert all(np.isfinite(line["distill/hidden"]) for line in lines)


def test_a_distilbert_grows_an_extension_as_a_teacher(tmp_path):
    folder = write_model(tmp_path / "teacher", ("base", "mlm"), **DISTILBERT)
    config = tiny_config(tmp_path, **{f"student__{name}": v for name, v in DISTILBERT.items()})
    pieces = len(load_tokenizer(folder))
    words = types.Vocabulary(pieces, pieces + 20, mask_id=4, cls_id=2, sep_id=3)
    run = run_of(config, words, total_steps=1)
    assert run.nets.teacher.config.extension and not run.nets.teacher.config.base.has_pooler
    assert set(run.trained["teacher"]) == {"extension", "mlm"}
    assert set(run.trained["student"]) == {"base", "extension", "mlm", "projection"}
    # From here on it is the same net as the MPNet below, less its bias.


@pytest.fixture(scope="module")
def mpnets(tmp_path_factory):
    """The folder of a run of two updates: an MPNet with extension blocks, and its student."""
    folder = tmp_path_factory.mktemp("mpnet")
    write_corpus(folder / "corpus.txt")
    write_model(folder / "teacher", ("base", "mlm"), **MPNET)
    student = DISTILBERT | {"family": "mpnet", "init": "teacher", "hidden_size": 24}
    options = {f"student__{name}": value for name, value in student.items()}
    options |= {"student__extension__hidden_size": 0, "rows__mode": "single"}
    config = tiny_config(folder, max_steps=2, **options)
    train(config, str(folder / "run"))
    return SimpleNamespace(config=config, folder=folder, run=folder / "run")


def test_an_mpnet_grows_words_and_an_extension_and_teaches_one_of_its_family(mpnets, tmp_path):
    bias_nh = {}
    for net in ("teacher", "student"):
        exbert, params = pretrained.load_model(mpnets.run / net)
        assert bool(exbert.extension) == (net == "teacher")
        assert exbert.extension_vocab_size > 0 and not exbert.base.has_pooler
        assert set(params) == {"base", "extension", "mlm"}
        bias_nh[net] = params["base"]["relative"]["embedding"]
    assert np.any(bias_nh["teacher"] != bias_nh["student"])  # begun as the other, it learned
    np.testing.assert_allclose(bias_nh["teacher"], bias_nh["student"], atol=0.1)
    values = json.loads((mpnets.run / "student" / "config.json").read_text())
    assert values["architectures"] == ["MPNetForMaskedLM"] and "auto_map" not in values
    assert (values["max_position_embeddings"], values["pad_token_id"]) == (42, 1)
    before = load_file(mpnets.folder / "teacher" / "model.safetensors")
    after = load_file(mpnets.run / "teacher" / "model.safetensors")
    bias = "encoder.relative_attention_bias.weight"  # the base is frozen
    np.testing.assert_array_equal(before[f"mpnet.{bias}"], after[f"bert.{bias}"])
    tokenizer = load_tokenizer(mpnets.run / "teacher")
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", 1)
    logged = {name for line in read_metrics(mpnets.run / "metrics.jsonl") for name in line}
    assert {"teacher/mlm", "student/mlm", "distill/attention"} <= logged
    assert not [name for name in logged if "nsp" in name]
    model = formats.load(str(mpnets.run / "teacher"))
    out = formats.export(model, "onnx", tmp_path / "onnx")
    assert check.largest_difference(model, "onnx", out, **COMPARE) < 2e-5


def test_fused_attention_beside_an_mpnet_is_an_error_at_once(mpnets, tmp_path):
    config = mpnets.config.copy_and_resolve_references()
    config.attention = "fused"
    with pytest.raises(ValueError, match="take --config.attention=explicit"):
        train(config, str(tmp_path / "run"))


def test_extension_blocks_beside_an_albert_are_an_error_at_once(taught):
    config = tiny_config(taught.inputs, teacher__random_heads=("nsp",))
    pieces = len((taught.inputs / "teacher" / "vocab.txt").read_text("utf-8").splitlines())
    words = types.Vocabulary(pieces, pieces, mask_id=4, cls_id=2, sep_id=3)
    with pytest.raises(ValueError, match="an extension, which no kind of checkpoint can hold"):
        run_of(config, words, total_steps=1)


def test_a_distilbert_learns_to_classify_and_is_exported(taught, tmp_path):
    table = write_labelled(tmp_path / "texts.csv")
    config = tiny_tuning("classification", taught.workdir / "student", table, num_seeds=1, epochs=8)
    summary = finetune(config, str(tmp_path / "run"))
    assert summary["seeds"]["0"]["test"]["accuracy"] > 0.6
    folder = tmp_path / "run" / "model"
    values = json.loads((folder / "config.json").read_text())
    assert values["architectures"] == ["DistilBertForSequenceClassification"]
    model = formats.load(str(folder))
    for format_name, limit in (("onnx", 2e-5), ("hf", 0.0)):
        out = formats.export(model, format_name, tmp_path / format_name)
        assert check.largest_difference(model, format_name, out, **COMPARE) <= limit
    classifier = models.open_model(tmp_path / "onnx")  # its config.json has DistilBERT's words
    (found,) = classifier(["the cell binds"])
    assert found.label in classifier.labels


def test_an_albert_learns_to_tag_and_is_exported(taught, tmp_path):
    data = write_tagging(tmp_path / "words")
    config = tiny_tuning("tagging", taught.inputs / "teacher", data, num_seeds=1, epochs=1)
    finetune(config, str(tmp_path / "run"))
    model = formats.load(str(tmp_path / "run" / "model"))
    assert model.config.base.shares_layers
    out = formats.export(model, "onnx", tmp_path / "onnx")
    assert check.largest_difference(model, "onnx", out, **COMPARE) < 2e-5


def correlation(model, folder):
    """Returns how the numbers of an ONNX file go with Flax's, over random rows; the least one."""
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (8, 24)).astype(np.int32)
    inputs = (ids, np.ones_like(ids), np.zeros_like(ids))
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    got = session.run(
        formats.output_names(model),
        {name: value.astype(np.int64) for name, value in zip(INPUTS, inputs, strict=True)},
    )
    expected = check.compiled(model)(*inputs)
    return min(
        np.corrcoef(ours.ravel(), np.asarray(theirs).ravel())[0, 1]
        for ours, theirs in zip(got, expected, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        *itertools.product(("distilbert", "albert"), ("onnx", "onnx-int8", "stablehlo")),
        # Their float32 files are compared below, after tuning.
        ("roberta", "onnx-int8"),
        ("electra", "onnx-int8"),
        ("mpnet", "onnx-int8"),
        ("mpnet", "stablehlo"),
    ],
)
def test_encoders_give_what_flax_gives(tmp_path, name, format_name):
    options = {"distilbert": DISTILBERT, "albert": ALBERT, "electra": ELECTRA}
    options |= {"roberta": ROBERTA | {"kind": "bytes"}, "mpnet": MPNET}
    options = options[name]
    heads = ("base", "pooler") if name == "albert" else ("base", "mlm")
    model = formats.load(str(write_model(tmp_path / "model", heads, **options)))
    out = formats.export(model, format_name, tmp_path / "out")
    if format_name == "onnx-int8":
        assert correlation(model, out) > 0.99
        return
    difference = check.largest_difference(model, format_name, out, **COMPARE)
    assert difference < {"onnx": 2e-5, "stablehlo": 1e-5}[format_name]


def test_the_one_block_of_an_albert_is_stored_once(tmp_path):
    sizes = []
    for layers in (2, 6):
        folder = write_model(
            tmp_path / f"{layers}", ("base", "pooler"), num_hidden_layers=layers, **ALBERT
        )
        out = formats.export(formats.load(str(folder)), "onnx", tmp_path / f"onnx{layers}")
        graph = onnx.load(out / "model.onnx").graph
        sizes.append(sum(np.prod(each.dims) for each in graph.initializer))
    assert sizes[0] == sizes[1]


CLASSES = {"roberta": "Roberta", "electra": "Electra", "mpnet": "MPNet"}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A RoBERTa that became an exBERT with more byte-level pieces, and a BERT that learned of it.

    The exBERT does not move, so that it is left as it began.
    """
    inputs = tmp_path_factory.mktemp("roberta")
    write_corpus(inputs / "corpus.txt")
    write_model(inputs / "teacher", ("base", "mlm"), kind="bytes", **ROBERTA)
    config = tiny_config(
        inputs,
        max_steps=2,
        vocabulary__size=12,
        teacher__added_word_init="pieces",
        optimizer__teacher_learning_rate=0.0,
        rows__mode="single",
        heldout__examples=2,
        student__extension__hidden_size=0,
        student__has_pooler=False,
    )
    return SimpleNamespace(inputs=inputs, run=inputs / "run", summary=train(config, inputs / "run"))


def test_a_roberta_is_adapted_and_teaches_a_bert_in_the_same_step(adapted):
    teacher, params = pretrained.load_model(adapted.run / "teacher")
    assert teacher.extension and set(params) == {"base", "extension", "mlm"}
    assert (teacher.base.family, teacher.base.max_position_embeddings) == ("", 40)
    before = load_file(adapted.inputs / "teacher" / "model.safetensors")
    after = load_file(adapted.run / "teacher" / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"  # the base is frozen
    np.testing.assert_array_equal(before[f"roberta.{name}"], after[f"bert.{name}"])
    unread = before["roberta.embeddings.position_embeddings.weight"][2:]
    np.testing.assert_array_equal(unread, after["bert.embeddings.position_embeddings.weight"])
    values = json.loads((adapted.run / "student" / "config.json").read_text())
    assert (values["model_type"], values["architectures"]) == ("bert", ["BertForMaskedLM"])
    assert values["pad_token_id"] == 1
    logged = {name for line in read_metrics(adapted.run / "metrics.jsonl") for name in line}
    assert {"teacher/mlm", "student/mlm", "distill/hidden"} <= logged
    told = json.dumps(adapted.summary["heldout"])
    assert "nan" not in told.lower()


def test_new_byte_level_pieces_begin_as_their_old_ones_and_are_in_every_export(adapted):
    base = load_tokenizer(adapted.inputs / "teacher")
    size = len(base)
    config, params = pretrained.load_model(adapted.run / "teacher")
    assert (config.base.vocab_size, config.extension_vocab_size) == (size, 12)
    backend = load_tokenizer(adapted.run / "teacher").backend_tokenizer
    base_vd = params["base"]["embeddings"]["word"]["embedding"]
    split = split_added_words(backend, size)
    assert min(map(len, split)) > 1
    expected = [base_vd[list(ids)].mean(axis=0) for ids in split]
    added_vd = params["extension"]["word"]["embedding"]
    np.testing.assert_allclose(added_vd, np.array(expected), atol=1e-6)
    assert params["mlm"]["bias"].shape == (size + 12,)
    names = backend.get_vocab(with_added_tokens=True)
    text = " ".join(make_documents(3)).replace("\n", " ")
    for net in ("teacher", "student"):
        auto = AutoTokenizer.from_pretrained(adapted.run / net, trust_remote_code=False)
        assert auto.get_vocab() == names and len(names) == size + 12
        ids = auto(text, add_special_tokens=False)["input_ids"]
        assert ids == backend.encode(text, add_special_tokens=False).ids
        assert len(ids) < len(base(text, add_special_tokens=False)["input_ids"])
        assert "tokenizer.json" in (adapted.run / net / "SHA256SUMS").read_text()
    student, _ = pretrained.load_model(adapted.run / "student")
    assert student.base.vocab_size + student.extension_vocab_size == size + 12


@pytest.mark.parametrize("name", ["roberta", "electra", "mpnet"])
def test_a_model_of_the_family_learns_to_tag_and_comes_back_as_it_was(request, tmp_path, name):
    options = {"roberta": ROBERTA | {"kind": "bytes"}, "electra": ELECTRA, "mpnet": MPNET}[name]
    if name == "mpnet":  # a student, with words of its own
        folder = request.getfixturevalue("mpnets").run / "student"
    else:
        folder = write_model(tmp_path / "model", ("base",), **options)
    data = write_tagging(tmp_path / "words")
    config = tiny_tuning("tagging", folder, data, num_seeds=1, epochs=1)
    finetune(config, str(tmp_path / "run"))
    values = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert values["model_type"] == name
    assert values["architectures"] == [f"{CLASSES[name]}ForTokenClassification"]
    assert values["max_position_embeddings"] == 40 + options.get("position_offset", 0)
    model = formats.load(str(tmp_path / "run" / "model"))
    assert model.config.base.family == name
    out = formats.export(model, "onnx", tmp_path / "onnx")
    assert check.largest_difference(model, "onnx", out, **COMPARE) < 2e-5
    tagger = models.open_model(out, max_length=40)
    assert len(tagger.tag_words([["the", "astrocyte", "binds"]])[0]) == 3
    with pytest.raises(ValueError, match="expected max_length from 4 to 40"):
        models.open_model(out, max_length=41)


def test_an_electra_discriminator_becomes_an_exbert_with_a_fresh_mlm_head(tmp_path):
    folder = write_model(tmp_path / "teacher", ("base",), **(ELECTRA | {"embedding_size": 0}))
    config = tiny_config(tmp_path, teacher__random_heads=("mlm",))
    pieces = len(load_tokenizer(folder))
    words = types.Vocabulary(pieces, pieces + 20, mask_id=4, cls_id=2, sep_id=3)
    run = run_of(config, words, total_steps=1)
    teacher = run.nets.teacher.config
    assert teacher.extension and teacher.extension_vocab_size == 20
    assert (teacher.base.family, run.nets.student.config.base.family) == ("", "")
    assert set(run.trained["teacher"]) == {"extension", "mlm"}
    words_vd = load_file(folder / "model.safetensors")["electra.embeddings.word_embeddings.weight"]
    frozen = run.frozen["teacher"]["base"]["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(frozen, words_vd)


def test_a_model_whose_tokenizer_pads_otherwise_is_not_written(tmp_path):
    write_model(tmp_path / "model", ("base", "mlm"), **(ROBERTA | {"position_offset": 3}))
    model = formats.load(str(tmp_path / "model"))
    with pytest.raises(ValueError, match="pads with piece 0, expected 2: a roberta counts"):
        formats.export(model, "hf", tmp_path / "out")
