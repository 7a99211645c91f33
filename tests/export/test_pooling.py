# SPDX-License-Identifier: Apache-2.0
"""A text's vector is made as the encoder's own files say, and these travel with its export."""

import json

import numpy as np
import pytest

from edad_jax.export import formats, pooling
from edad_jax.export.check import compiled
from edad_jax.files import SUMS
from edad_jax.runtime.models import Encoder
from tests.runtime.stand_ins import DRUG, GENE
from tests.tiny_exports import tiny_model
from tests.tiny_text import WORDS

MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


def write_modules(folder, mode=MEAN, last=("Normalize",), length=None):
    """Writes the files of a sentence encoder; None leaves one out."""
    kinds = ["Transformer", "Pooling", *last]
    modules = [
        {"idx": number, "path": f"{number}_{kind}" if number else "", "type": f"x.models.{kind}"}
        for number, kind in enumerate(kinds)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    if mode is not None:
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(mode))
    if length is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, ("mean", True, 20)),
        ({"last": ()}, ("mean", False, 20)),
        ({"length": 10}, ("mean", True, 10)),
        ({"length": 512}, ("mean", True, 20)),
        ({"mode": {"pooling_mode_cls_token": True}, "last": ()}, ("cls", False, 20)),
        ({"mode": {"pooling_mode_max_tokens": True}}, ("max", True, 20)),
        ({"mode": {"pooling_mode": "mean"}}, ("mean", True, 20)),
    ],
)
def test_the_models_own_files_say_how_a_vector_is_made(tmp_path, written, expected):
    write_modules(tmp_path, **written)
    found = pooling.read_pooling(tmp_path, positions=20)
    assert found == dict(zip(("mode", "normalize", "max_length"), expected, strict=True))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"last": ("Dense", "Normalize")}, "names Transformer, Pooling, Dense, Normalize"),
        ({"mode": None}, "config.json is missing"),
        ({"mode": MEAN | {"pooling_mode_max_tokens": True}}, "says mean, max, expected one of"),
        ({"mode": {"pooling_mode_lasttoken": True}}, "says pooling_mode_lasttoken"),
        ({"mode": {}}, "says no mode"),
    ],
)
def test_vectors_that_are_made_in_another_way_are_refused(tmp_path, written, says):
    write_modules(tmp_path, **written)
    with pytest.raises(ValueError, match=says) as error:
        pooling.read_pooling(tmp_path, positions=20)
    assert "take modules.json out of the folder to export the encoder alone" in str(error.value)


def test_a_folder_without_modules_says_nothing(tmp_path):
    assert pooling.read_pooling(tmp_path, positions=20) is None


def hidden_states(trained, ids):
    """Returns what Flax says of a row of ids: [pieces, width]; it is padded to 20."""
    row, mask = np.zeros((1, 20), np.int32), (np.arange(20) < len(ids)).astype(np.int32)[None]
    row[0, : len(ids)] = ids
    return np.asarray(trained(row, mask, np.zeros_like(row))[0][0, : len(ids)], np.float64)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tokenizer_dir):
    """Returns (model, its folder, its exported folder) of a random encoder of 20 positions."""
    folder = tmp_path_factory.mktemp("pooling") / "model"
    model = formats.load(tiny_model(folder, tokenizer_dir, "encoder", blocks=False))
    return model, folder, formats.export(model, "onnx", folder.with_name("onnx"))


def test_a_vector_is_the_mean_of_all_pieces_and_of_length_one_where_the_files_say_so(
    encoder, tmp_path
):
    model, folder, _ = encoder
    write_modules(folder, length=16)
    copy = formats.export(model, "hf", tmp_path / "copy")
    exported = formats.export(formats.load(str(copy)), "onnx", tmp_path / "onnx")
    formats.export(model, "hf", copy)  # what has these files is an export still
    vectors = Encoder(exported)
    assert vectors.max_length == 16
    cls, sep = vectors.ends
    text = f"{DRUG} {GENE} x"
    trained = compiled(model)
    hidden = hidden_states(trained, [cls, *vectors.tokenize(text).ids, sep])
    mean = hidden.mean(axis=0)
    (found,) = vectors([text])
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)
    (nothing,) = vectors([""])
    mean = hidden_states(trained, [cls, sep]).mean(axis=0)
    np.testing.assert_allclose(nothing, mean / np.linalg.norm(mean), atol=1e-5)
    (exported / SUMS).unlink()  # config.json is changed by hand
    config = json.loads((exported / "config.json").read_text())
    for mode, of_all in (("cls", hidden[0]), ("max", hidden.max(0)), ("mean", hidden.mean(0))):
        config["sentence_pooling"] = {"mode": mode, "normalize": False}
        (exported / "config.json").write_text(json.dumps(config))
        np.testing.assert_allclose(next(Encoder(exported)([text])), of_all, atol=1e-4)
    config["sentence_pooling"] = {"mode": "median", "normalize": False}
    (exported / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="says a pooling of 'median', expected one of mean, cls"):
        Encoder(exported)


def test_a_long_text_is_the_mean_over_its_windows_pieces(encoder):
    vectors = Encoder(encoder[2], max_length=8, overlap=2)
    words = " ".join(WORDS[5:15])
    ids = vectors.tokenize(words).ids
    assert len(ids) == 10  # windows 0 to 6 and 4 to 10, of which 0 to 5 and 5 to 10 are judged
    cls, sep = vectors.ends
    states = []
    for part, kept in ((ids[0:6], slice(0, 5)), (ids[4:10], slice(1, 6))):
        feed = {
            "input_ids": np.array([[cls, *part, sep]]),
            "attention_mask": np.ones((1, 8), np.int64),
            "token_type_ids": np.zeros((1, 8), np.int64),
        }
        (values,) = vectors.session.run(["last_hidden_state"], feed)
        states += [values[0][[0, -1]], values[0][1:-1][kept]]
    assert len(np.concatenate(states)) == 10 + 2 * 2
    np.testing.assert_allclose(
        next(vectors([words])), np.concatenate(states).mean(axis=0), atol=1e-5
    )
