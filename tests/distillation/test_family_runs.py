# SPDX-License-Identifier: Apache-2.0
"""Whole runs of the other families: an ALBERT teaches a DistilBERT, which is tuned and exported."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import save_file

from edad_jax import types
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
from tests.tiny_text import write_tokenizer

DISTILBERT = {"type_vocab_size": 0, "has_pooler": False}
ALBERT = {"shares_layers": True, "embedding_size": 16, "hidden_act": "gelu_new"}
COMPARE = {"rows": 24, "batch_size": 4, "progress": False}


def write_model(folder, heads, **options):
    """Returns a folder with a random model of a family, its tokenizer beside it."""
    write_tokenizer(folder)
    pieces = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
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


def test_a_distilbert_grows_an_extension_and_teaches_a_net_without_pooler(tmp_path):
    write_corpus(tmp_path / "corpus.txt")
    write_model(tmp_path / "teacher", ("base", "mlm"), **DISTILBERT)
    options = {f"student__{name}": value for name, value in DISTILBERT.items()}
    config = tiny_config(tmp_path, max_steps=2, **options)
    train(config, str(tmp_path / "run"))
    for net in ("teacher", "student"):
        exbert, params = pretrained.load_model(tmp_path / "run" / net)
        assert exbert.extension and not exbert.base.has_pooler
        assert set(params) == {"base", "extension", "mlm"}
    logged = {name for line in read_metrics(tmp_path / "run" / "metrics.jsonl") for name in line}
    assert "student/mlm" in logged
    assert not [name for name in logged if "nsp" in name]


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


@pytest.mark.parametrize("format_name", ["onnx", "onnx-int8", "stablehlo"])
@pytest.mark.parametrize("name", ["distilbert", "albert"])
def test_encoders_give_what_flax_gives(tmp_path, name, format_name):
    options = {"distilbert": DISTILBERT, "albert": ALBERT}[name]
    heads = ("base", "mlm") if name == "distilbert" else ("base", "pooler")
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
