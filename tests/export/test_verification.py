# SPDX-License-Identifier: Apache-2.0
"""What is exported is compared with the trained model before it takes its place."""

import json

import fsspec
import numpy as np
import onnx
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from edad_jax.export import formats, sensitivity
from edad_jax.export.onnx import build_onnx
from edad_jax.export.verification import Verification, agreement
from edad_jax.models.task import Task
from edad_jax.runtime.models import Prediction, Span
from edad_jax.tasks.own_text import own_inputs
from tests.tiny_exports import tiny_model
from tests.tiny_tasks import tiny_sentences, write_tagging

TEXTS = [" ".join(words) for words in tiny_sentences(12)]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory, tokenizer_dir):
    folder = tmp_path_factory.mktemp("verification") / "model"
    return formats.load(tiny_model(folder, tokenizer_dir, "tagging"))


def test_an_export_that_differs_does_not_take_the_place_of_one_that_does_not(tagger, tmp_path):
    verification = Verification(tagger, "onnx", TEXTS, rows=4)
    folder = formats.export(tagger, "onnx", tmp_path / "out", check=verification)
    assert "difference from Flax on 4 random rows: " in verification.found.sentence
    text, said = verification.found.example
    assert said["entities"] and said["entities"][0]["text"] in text
    before = (folder / "model.onnx").read_bytes()
    bias = tagger.params["classifier"]["dense"]["bias"]
    other = {"dense": tagger.params["classifier"]["dense"] | {"bias": bias + 0.02}}
    wrong = tagger._replace(params=tagger.params | {"classifier": other})
    with pytest.raises(ValueError, match="expected at most 1e-04: nothing was written"):
        formats.export(wrong, "onnx", folder, check=verification)
    assert (folder / "model.onnx").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_int8_keeps_what_it_must_in_32_bits_or_says_what_loses_most(tagger, tmp_path):
    layer = dict(tagger.params["base"]["layers_0"])
    large = np.arange(len(layer["intermediate"]["bias"])) == 0  # an input that drowns the others,
    for name, part, value in (("intermediate", "bias", 2_000), ("output", "kernel", 0)):
        array = np.array(layer[name][part])
        array[large] = value  # and of which nothing is read
        layer[name] = layer[name] | {part: array}
    base = tagger.params["base"] | {"layers_0": layer}
    model = tagger._replace(params=tagger.params | {"base": base})
    verification = Verification(model, "onnx-int8", TEXTS)
    with pytest.raises(ValueError, match="nothing was written. Most is lost in") as error:
        formats.export(model, "onnx-int8", tmp_path / "out", check=verification)
    ranked = list(sensitivity.losses(model, TEXTS))
    assert ranked[0] == "0.base.output"
    assert f"--keep_float32={','.join(ranked[:3])}" in str(error.value)
    assert not (tmp_path / "out").exists()
    verification = Verification(model, "onnx-int8", TEXTS, keep_float32=["auto"])
    folder = formats.export(model, "onnx-int8", tmp_path / "out", check=verification)
    found = verification.found
    assert found.agreement >= 0.98 and len(found.kept) < len(ranked)
    assert set(found.kept) == set(ranked[: len(found.kept)])
    options = {"int8": True, "keep_float32": found.kept}
    expected = build_onnx(model.config, model.params, model.task, **options)
    assert (folder / "model.onnx").read_bytes() == expected.SerializeToString()


def test_parts_keep_32_bits_by_name_or_pattern_and_nodes_are_called_after_them(tagger):
    arguments = (tagger.config, tagger.params, tagger.task)
    nodes = build_onnx(*arguments, int8=True, keep_float32=["1.*", "classifier"]).graph.node
    assert len({node.name for node in nodes}) == len(nodes)
    kinds = {node.name.rpartition(".")[0] for node in nodes}
    assert {"0.qkv.DynamicQuantizeMatMul", "1.qkv.MatMul", "classifier.MatMul"} <= kinds
    assert {"embeddings.Gather", "0.base.norm1.LayerNormalization", "0.base.Gelu"} <= kinds
    assert not any(name.startswith("1.") and "Quantize" in name for name in kinds)
    words = build_onnx(*arguments, int8=True, keep_float32=["words"]).graph.initializer
    kept = {each.data_type for each in words if each.name.rpartition(".")[0] == "words"}
    assert kept == {onnx.TensorProto.FLOAT}
    with pytest.raises(ValueError, match="got '7.qkv', expected names or patterns of words, 0.qkv"):
        build_onnx(*arguments, int8=True, keep_float32=["7.qkv"])


def test_labels_that_the_runtime_cannot_serve_are_an_error_of_the_export(tmp_path, tokenizer_dir):
    labels = ("NN", "VB", "JJ", "DT")
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging", labels=labels))
    with pytest.raises(ValueError, match="cannot serve: it: got labels .*NN.*Nothing was written"):
        formats.export(model, "onnx", tmp_path / "onnx", check=Verification(model, "onnx", rows=1))
    assert not (tmp_path / "onnx").exists()


def test_int8_without_texts_asks_for_some(tagger):
    with pytest.raises(ValueError, match="names none that is here; give some with --data"):
        Verification(tagger, "onnx-int8", [])


def test_agreement_is_of_what_users_see():
    def span(start, label="Drug"):
        return Span(label, start, start + 2, "xx", 0.5)

    ours = [[span(0), span(5)], [], [span(3)]]
    assert agreement("tagging", ours, ours) == 1
    others = [[span(0), span(5, "Gene")], [span(9)], [span(3)]]
    assert agreement("tagging", ours, others) == pytest.approx(2 * 2 / (3 + 4))
    assert agreement("tagging", ours, [[], [], []]) == 0
    with pytest.raises(ValueError, match="finds no entity in 3 texts"):
        agreement("tagging", [[], [], []], [[], [], []])
    said, other = ([Prediction(label, 1.0, {}) for label in labels] for labels in ("aabb", "aaba"))
    assert agreement("classification", said, other) == 0.75
    answers = [[("a", 0, 1, 0.9)], []]
    assert agreement("answering", answers, [[("a", 0, 1, 0.2)], []]) == 1
    assert agreement("answering", answers, [[("b", 4, 5, 0.9)], []]) == 0.5


def test_vectors_that_all_point_one_way_must_still_tell_texts_apart():
    random = np.random.default_rng(0)
    vectors = 50 + random.standard_normal((40, 24))
    assert agreement(None, vectors, vectors) == pytest.approx(1)
    shuffled = np.roll(vectors, 1, axis=0)  # plain cosines with it are beyond 0.999
    assert agreement(None, vectors, shuffled) < 0.3
    assert agreement(None, vectors, np.full_like(vectors, np.nan)) == 0
    assert agreement(None, vectors[:1], vectors[:1] * 2) == pytest.approx(1)


def test_texts_are_those_of_the_run_that_left_the_model(tagger, tmp_path):
    data = str(write_tagging(tmp_path / "data", train=9))
    validation = {" ".join(words) for words in tiny_sentences(16, seed=1)}
    assert set(own_inputs(tagger, 50, data=data)) == validation
    assert own_inputs(tagger, 50) == []
    run = tmp_path / "run"
    run.mkdir()
    recorded = {"task": "tagging", "data": data, "split_seed": 0, "text_key": "", "label_key": ""}
    (run / "config.json").write_text(json.dumps(recorded))
    ours = tagger._replace(source=str(run / "model"))
    assert set(own_inputs(ours, 50)) == validation and len(own_inputs(ours, 4)) == 4
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert sorted(own_inputs(ours, 50, texts=str(tmp_path / "a.txt"))) == ["one", "two"]
    (run / "config.json").write_text(json.dumps(recorded | {"data": str(tmp_path / "gone")}))
    assert own_inputs(ours, 50) == []
    (tmp_path / "corpus.txt").write_text("First line.\nSecond.\n\nThird.\n")
    corpus = {"files": str(tmp_path / "corpus.txt"), "text_key": "text", "encoding": "utf-8"}
    (run / "config.json").write_text(json.dumps({"corpus": corpus | {"lines": False}}))
    encoder = ours._replace(task=None)
    assert own_inputs(encoder, 2) == ["First line.", "Second."]
    fsspec.register_implementation("locked", LockedStorage, clobber=True)
    elsewhere = corpus | {"lines": False, "files": "locked://bucket/a.txt"}
    (run / "config.json").write_text(json.dumps({"corpus": elsewhere}))
    assert own_inputs(encoder, 2) == []  # this machine may have no credentials


class LockedStorage(MemoryFileSystem):
    """Object storage that lets nobody in."""

    protocol = "locked"

    def _open(self, path, *arguments, **options):
        raise PermissionError(13, "Access denied", path)

    info = find = glob = exists = _open


def test_what_a_model_cannot_read_is_no_text_to_compare_it_on(tagger, tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    answerer = tagger._replace(task=Task("answering", ("start", "end")))
    with pytest.raises(ValueError, match="which answers questions; expected data="):
        own_inputs(answerer, 2, texts=str(tmp_path / "a.txt"))
    with pytest.raises(ValueError, match="an encoder without a task; expected texts="):
        own_inputs(tagger._replace(task=None), 2, data=str(tmp_path))
