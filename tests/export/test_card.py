# SPDX-License-Identifier: Apache-2.0
"""The card beside the weights: what the hub reads in it, and what it must not tell."""

import dataclasses
import json

import pytest

from edad_jax.export import formats
from edad_jax.export.card import Score, Verified, export_readme, origin, public, readme
from edad_jax.models.task import Task
from tests.tiny_exports import CARD, LABELS, tiny_model
from tests.tiny_models import tiny_exbert_config

TAGGING = Task("tagging", LABELS)


def front_of(text):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(text.split("---\n", 2)[1])


@pytest.fixture
def card(tmp_path):
    return dataclasses.replace(
        CARD,
        base_model="bert-base-uncased",
        datasets=["ncbi/ncbi_disease"],
        scores=[Score("f1", 0.8412345, "NCBI-disease", "test")],
        example=("Cisplatin.", {"Cisplatin": "B-Drug"}),
        use="For reports.",
        made=["Encoder: a student.", "Written by a test."],
        settings={"model": str(tmp_path / "secret" / "student"), "lr": 1e-4, "data": "a/b/c.tsv"},
    )


def test_the_hub_reads_who_made_it_from_what_and_how_good_it_is(card):
    text = readme(card, tiny_exbert_config(), TAGGING)
    front = front_of(text)
    assert front["license"] == "apache-2.0" and front["language"] == "en"
    assert front["base_model"] == "bert-base-uncased" and front["datasets"] == ["ncbi/ncbi_disease"]
    assert front["pipeline_tag"] == "token-classification" and "exbert" in front["tags"]
    (model,) = front["model-index"]
    (result,) = model["results"]
    assert result["task"] == {"type": "token-classification"}
    assert result["dataset"] == {"name": "NCBI-disease", "type": "NCBI-disease", "split": "test"}
    assert result["metrics"] == [{"type": "f1", "value": 0.841234}]
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import ModelCardData

    data = ModelCardData(**front)
    assert data.eval_results[0].metric_value == 0.841234


def test_people_read_an_example_its_limits_and_how_it_was_made(card):
    text = readme(card, tiny_exbert_config(), TAGGING)
    assert '"Cisplatin."\n{"Cisplatin": "B-Drug"}' in text
    assert "## Use and limits\n\nFor reports." in text
    assert "1. Encoder: a student.\n2. Written by a test." in text
    assert "<details><summary>Settings</summary>" in text and "| lr | 0.0001 |" in text
    assert "Loads in transformers 4.46" in text


def test_a_card_tells_no_path(card, tmp_path):
    text = readme(card, tiny_exbert_config(), TAGGING)
    assert str(tmp_path) not in text and "secret" not in text
    assert "| model | student |" in text and "| data | c.tsv |" in text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("/home/me/x/model", "model"),
        ("~/runs/student/", "student"),
        ("runs/a/student", "student"),
        ("C:\\models\\bert", "bert"),
        ("/data/a.txt,/data/b*.txt", "a.txt,b*.txt"),
        ("google/bert_uncased", "google/bert_uncased"),
        ("s3://bucket/text/*.gz", "s3://bucket/text/*.gz"),
        ("words and/or more", "words and/or more"),
        (("/a/b", 3), ("b", 3)),
        ({"x": {"y": "/a/b"}}, {"x": {"y": "b"}}),
        (0.5, 0.5),
    ],
)
def test_of_a_path_the_last_name_is_told(value, told):
    assert public(value) == told


def test_the_teachers_license_is_the_default(tmp_path):
    assert origin("google/bert_x") == {"base_model": "google/bert_x"}
    folder = tmp_path / "models--google--bert_x" / "snapshots" / "0"
    folder.mkdir(parents=True)
    assert origin(str(folder)) == {"base_model": "google/bert_x"}
    (folder / "config.json").write_text('{"license": "mit"}')
    assert origin(str(folder))["license"] == "mit"
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# A BERT\n")
    assert origin(str(folder)) == {
        "license": "apache-2.0", "language": "en", "base_model": "google/bert_x"
    }  # fmt: skip
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    assert origin(str(folder))["license"] == "mit"


def test_an_exports_card_says_what_the_models_does_and_how_it_was_compared(tmp_path, tokenizer_dir):
    model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "tagging"))
    found = Verified("int8 agrees", 0.99, ("0.qkv",), ("A cat.", {"entities": []}))
    folder = formats.export(model, "onnx-int8", tmp_path / "int8", check=lambda *_: found)
    text = (folder / "README.md").read_text()
    assert front_of(text)["license"] == "apache-2.0"
    assert "Int8 agrees." in text and '"A cat."\n{"entities": []}' in text
    assert "| mlm_accuracy | 0.123457 |" in text and str(tmp_path) not in text
    formats.export(model, "hf", tmp_path / "int8", license="mit", language="ko")  # in its place
    front = front_of((tmp_path / "int8" / "README.md").read_text())
    assert (front["license"], front["language"]) == ("mit", "ko")
    assert "Not compared." in (tmp_path / "int8" / "README.md").read_text()
    again = formats.load(str(tmp_path / "int8"))
    text = export_readme(again.source, *again[1:2], again.task, format_name="onnx", mark="again")
    assert text.count("## Compared with the trained model") == 1
    assert json.loads((folder / "config.json").read_text())["id2label"]["0"] == "O"
