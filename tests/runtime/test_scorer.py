# SPDX-License-Identifier: Apache-2.0
"""Models with one output: their score, of texts and of pairs."""

import contextlib
import functools
import io
import json
import sys

import numpy as np
import pytest

from edad_jax.export import calibration, formats
from edad_jax.export.check import compiled
from edad_jax.export.huggingface import save_model
from edad_jax.models.task import Task
from edad_jax.runtime import __main__ as command
from edad_jax.runtime.models import Classifier, Score, Scorer, as_json, open_model
from edad_jax.tasks.exported import scores_of_both
from tests.runtime.stand_ins import DRUG, GENE
from tests.tiny_exports import CARD, edit_json, tuned
from tests.tiny_text import WORDS


def scoring_model(folder, tokenizer_dir, activation, *, weight=1.0):
    """Returns a random model whose one output has the bias 2, as `formats.load` gives it."""
    words = len((tokenizer_dir / "vocab.txt").read_text(encoding="utf-8").splitlines())
    config, params = tuned("classification", blocks=False, added_words=0, vocab_size=words)
    kernel = weight * params["classifier"]["dense"]["kernel"][:, :1]
    params["classifier"] = {"dense": {"kernel": kernel, "bias": np.array([2.0], np.float32)}}
    task = Task("classification", ("LABEL_0",), activation)
    save_model(folder, params, config, tokenizer_dir, card=CARD, task=task)
    return formats.load(str(folder))


@pytest.mark.parametrize(
    ("activation", "expected"), [("identity", 2.0), ("sigmoid", 1 / (1 + np.exp(-2.0)))]
)
def test_the_score_is_the_output_or_its_sigmoid(tmp_path, tokenizer_dir, activation, expected):
    model = scoring_model(tmp_path / "model", tokenizer_dir, activation, weight=0.0)
    assert model.task == Task("classification", ("LABEL_0",), activation)
    scorer = open_model(formats.export(model, "onnx", tmp_path / "onnx"))
    assert isinstance(scorer, Scorer)
    texts = ["", GENE, (DRUG, GENE), ("", "")]
    assert [score.score for score in scorer(texts)] == pytest.approx([expected] * 4, abs=1e-6)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, tokenizer_dir):
    """Returns (model, its exported folder); the score is the output itself."""
    root = tmp_path_factory.mktemp("scored")
    model = scoring_model(root / "model", tokenizer_dir, "identity")
    return model, formats.export(model, "onnx", root / "onnx")


def by_flax(model, ids, second):
    """Returns the output for a row of ids, whose second segment begins there; padded to 20."""
    places = np.arange(20)[None]
    mask = (places < len(ids)).astype(np.int32)
    segments = (places >= second).astype(np.int32) * mask
    row = np.zeros((1, 20), np.int32)
    row[0, : len(ids)] = ids
    return float(compiled_once(model.source)(row, mask, segments)[0][0, 0])


@functools.cache
def compiled_once(source):
    """Returns the model of a folder, compiled."""
    return compiled(formats.load(source))


def test_a_pair_is_read_as_one_row_of_two_segments_and_a_text_as_one(scored):
    model, folder = scored
    scorer = Scorer(folder)
    assert scorer.max_length == 20  # all positions
    cls, sep = scorer.ends
    first, second = (scorer.tokenize(text).ids.tolist() for text in (f"{GENE} {DRUG}", DRUG))
    pair = by_flax(model, [cls, *first, sep, *second, sep], len(first) + 2)
    alone = by_flax(model, [cls, *first, sep], 100)
    turned = by_flax(model, [cls, *second, sep, *first, sep], len(second) + 2)
    found = [each.score for each in scorer([(f"{GENE} {DRUG}", DRUG), f"{GENE} {DRUG}"])]
    assert found == pytest.approx([pair, alone], abs=1e-4)
    assert len({round(each, 2) for each in (pair, alone, turned)}) == 3
    assert as_json(Score(0.25)) == {"score": 0.25}


def test_a_pair_that_is_too_long_is_the_mean_over_windows_of_its_second_text(scored):
    model, folder = scored
    scorer = Scorer(folder, max_length=10, overlap=0)
    cls, sep = scorer.ends
    first, second = scorer.tokenize(GENE).ids.tolist(), " ".join(WORDS[5:15])
    ids = scorer.tokenize(second).ids.tolist()
    rows = [[cls, *first, sep, *ids[part], sep] for part in (slice(0, 6), slice(6, 10))]
    expected = np.mean([by_flax(model, row, 3) for row in rows])
    assert next(scorer([(GENE, second)])).score == pytest.approx(expected, abs=1e-4)


def test_a_score_stays_one_in_every_format(scored, tmp_path):
    model, folder = scored
    again = formats.load(str(formats.export(model, "hf", tmp_path / "hf")))
    assert again.task == model.task
    written = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert written["problem_type"] == "regression"  # else transformers takes the sigmoid
    name = written["sentence_transformers"]["activation_fn"]
    assert name == "torch.nn.modules.linear.Identity"
    (whole,), (eight_bits,) = (
        list(open_model(each)([(GENE, DRUG)]))
        for each in (folder, formats.export(model, "onnx-int8", tmp_path / "int8"))
    )
    assert eight_bits.score == pytest.approx(whole.score, abs=1.0)


def test_a_score_has_no_accuracy_and_no_texts_to_calibrate_with(scored):
    model, folder = scored
    with pytest.raises(ValueError, match="has no task to score"):
        scores_of_both(model, folder, "nowhere")
    with pytest.raises(ValueError, match="of texts or of pairs: its files do not say"):
        calibration.check_reads_texts(model)


def test_an_export_that_does_not_say_what_its_score_is_is_refused(scored, tmp_path, tokenizer_dir):
    model, _ = scored
    folder = formats.export(model, "onnx", tmp_path / "onnx")
    with pytest.raises(ValueError, match="one output, a score, .* open it as a Scorer"):
        Classifier(folder)
    edit_json(folder / "config.json", sentence_transformers=None)
    with pytest.raises(ValueError, match="got 1 outputs and activation_fn='' .*export the model"):
        open_model(folder)


def test_the_command_scores_pairs_and_texts(scored, folders, monkeypatch):
    _, folder = scored
    expected = [each.score for each in Scorer(folder)([(GENE, DRUG), f'["{GENE}"]'])]

    def run(text, *options):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output := io.BytesIO()))
        with contextlib.suppress(SystemExit):
            command.main([*options])
        sys.stdout.flush()
        return [json.loads(line)["score"] for line in output.getvalue().decode().splitlines()]

    assert run(f'["{GENE}", "{DRUG}"]\n[]\n', str(folder), "--pairs") == pytest.approx(
        expected[:1], abs=1e-5
    )
    assert run(f'["{GENE}"]\n', str(folder)) == pytest.approx(expected[1:], abs=1e-5)
    with pytest.raises(SystemExit, match="is no model that scores pairs; leave it out"):
        command.main([str(folders["encoder"]), "--pairs"])
