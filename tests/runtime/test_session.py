# SPDX-License-Identifier: Apache-2.0
"""Folders that are no export, or the export of another model, are told."""

import json
import shutil

import pytest

from edad_jax.runtime import models
from tests.runtime.stand_ins import DRUG, GENE, SMALL
from tests.tiny_exports import edit_json

NO_SUMS = shutil.ignore_patterns("SHA256SUMS")


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "tokenizer.json"])
def test_an_incomplete_folder_is_told(folders, tmp_path, name):
    shutil.copytree(folders["tagging"], tmp_path / "copy", ignore=NO_SUMS)
    (tmp_path / "copy" / name).unlink()
    with pytest.raises(ValueError, match=f"lacks {name}; expected what launch/export.py"):
        models.Tagger(tmp_path / "copy")


def test_damaged_files_and_strange_tokenizers_are_told(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders["tagging"], copy, ignore=NO_SUMS)
    whole = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="model.onnx: onnxruntime cannot read it"):
        models.Tagger(copy, **SMALL)
    (copy / "model.onnx").write_bytes(whole)
    tokenizer = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"]["another"] = len(tokenizer["model"]["vocab"])
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ValueError, match="it belongs to another model"):
        models.Tagger(copy, **SMALL)
    (copy / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json.*export the model again"):
        models.Tagger(copy, **SMALL)
    (copy / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="config.json.*export the model again"):
        models.Tagger(copy, **SMALL)


def test_the_tokenizer_of_another_model_is_told_though_it_has_as_many_pieces(folders, tmp_path):
    copy = shutil.copytree(folders["tagging"], tmp_path / "copy", ignore=NO_SUMS)
    tokenizer = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = tokenizer["model"]["vocab"]
    pieces[DRUG], pieces[GENE] = pieces[GENE], pieces[DRUG]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ValueError, match="SHA-256 .*it belongs to another model"):
        models.Tagger(copy, **SMALL)
    edit_json(copy / "config.json", tokenizer_sha256=None)
    with pytest.raises(ValueError, match="lacks tokenizer_sha256; export the model again"):
        models.Tagger(copy, **SMALL)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("tagging", {"id2label": {"0": "O", "1": "B-X"}}, "4 numbers as logits, .* says 2"),
        ("classification", {"id2label": dict(enumerate("abcde"))}, "4 .* logits, .* says 5"),
        ("encoder", {"hidden_size": 12}, "24 numbers as last_hidden_state, .* says 12"),
    ],
)
def test_the_config_of_another_model_is_told(folders, tmp_path, kind, changes, message):
    copy = shutil.copytree(folders[kind], tmp_path / "copy", ignore=NO_SUMS)
    edit_json(copy / "config.json", **changes)
    with pytest.raises(ValueError, match=f"{message}: one of them belongs to another model"):
        models.open_model(copy, **SMALL)


def test_another_task_and_impossible_windows_are_told(folders):
    with pytest.raises(ValueError, match="Classifier expected one that ends in ForSequence"):
        models.Classifier(folders["tagging"])
    for wrong in ({"max_length": 3}, {"max_length": 500}, {"overlap": 10}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="expected max_length from 4 to 20"):
            models.Tagger(folders["tagging"], **(SMALL | wrong))


def test_labels_that_name_no_entity_are_told(folders, tmp_path):
    shutil.copytree(folders["tagging"], tmp_path / "copy", ignore=NO_SUMS)
    labels = {"0": "O", "1": "B", "2": "I", "3": "LABEL_3"}
    edit_json(tmp_path / "copy" / "config.json", id2label=labels)
    with pytest.raises(ValueError, match=r"got labels \['B', 'I', 'LABEL_3'\], expected O and B-"):
        models.Tagger(tmp_path / "copy", **SMALL)


def test_a_flipped_bit_in_the_weights_is_named(folders, tmp_path):
    path = shutil.copytree(folders["tagging"], tmp_path / "copy") / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="model.onnx has the SHA-256 .* the file is damaged"):
        models.Tagger(tmp_path / "copy", **SMALL)
    (tmp_path / "copy" / "SHA256SUMS").write_text("half a li")
    with pytest.raises(ValueError, match="SHA256SUMS: got 'half a li', expected checksums"):
        models.Tagger(tmp_path / "copy", **SMALL)
