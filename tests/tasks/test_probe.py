# SPDX-License-Identifier: Apache-2.0
import json
import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from configs import ner
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.tasks import scores
from edad_jax.tasks.probe import Probe, f1_difference, probe
from edad_jax.tasks.probe_report import Probed, describe, probe_all, summarise
from edad_jax.tasks.setup import prepare_examples
from tests.tiny_tasks import tiny_sentences, write_exbert, write_tagged, write_tagging


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_exbert(tmp_path_factory.mktemp("encoder") / "student", width=48)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tagging(tmp_path_factory.mktemp("tagging") / "words", train=200)


def config_of(model, data, **changes):
    config = ner.get_config()
    config.task, config.model, config.data = "tagging", str(model), str(data)
    config.dtype, config.max_length = "float32", 32
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def found(model, data):
    return probe(config_of(model, data), layers=(0, 1, -1))


def test_a_linear_tagger_finds_what_the_words_give_away(found):
    embeddings, first, last = found
    assert (embeddings.layer, first.layer, last.layer) == (0, 1, -1)
    assert embeddings.f1 > 0.5 and last.f1 > 0.3  # of a net with random weights
    assert np.array_equal(first.counts_n3, last.counts_n3)  # a net of one layer


def test_what_is_counted_by_sentence_adds_up_to_the_score(found):
    matched, said, wanted = found[0].counts_n3.sum(axis=0)
    assert found[0].f1 == pytest.approx(2 * matched / (said + wanted))
    gold = [["B-A", "I-A", "O", "I-B"], ["O", "B-A"]]
    guess = [["B-A", "O", "O", "B-B"], ["B-A", "B-A"]]
    # conlleval's way: I-B begins an entity, so the second one is right.
    assert scores.entity_counts(gold, guess).tolist() == [[1, 2, 2], [1, 2, 1]]
    assert scores.entity_scores(gold, guess)["f1"] == pytest.approx(2 * 2 / (4 + 3))


def test_a_probe_has_no_seed(model, data, found):
    again = probe(config_of(model, data, seed=5), layers=(-1,))
    assert again[0].f1 == found[2].f1 and again[0].strength == found[2].strength


def test_the_interval_of_a_difference_is_of_the_same_sentences():
    better = np.tile([[9, 10, 10], [8, 10, 10]], (50, 1))
    worse = better - np.array([1, 0, 0])
    probes = [Probe(-1, f1, 0.1, f1, counts) for f1, counts in ((0.75, worse), (0.85, better))]
    difference, low, high = f1_difference(*probes)
    assert difference == pytest.approx(0.1)
    # Every sentence is better by as much: no choice of them changes it.
    assert (low, high) == pytest.approx((0.1, 0.1))
    difference, low, high = f1_difference(probes[1], probes[1])
    assert (difference, low, high) == (0, 0, 0)


def test_models_stand_side_by_side(model, data, tmp_path):
    wider = write_exbert(tmp_path / "wider", layers=2, width=24)
    given = config_of("", "", max_train=60)
    found = probe_all(given, [str(model), str(wider)], [str(data)], [-1])
    table = describe(found).splitlines()
    assert len(table) == 4 and data.name in table[0]
    assert "(" not in table[2] and "(" in table[3]  # the first is what the others differ from
    written = json.loads(json.dumps(summarise(found)))
    assert [each["model"] for each in written] == [str(model), str(wider)]
    assert all(0 <= each["f1"] <= 1 and len(each["entities"]) == 3 for each in written)


def test_data_sets_whose_folders_have_one_name_have_columns_of_their_own():
    counts = np.tile([[1, 2, 2]], (4, 1))
    found = [
        Probed("m", f"{place}/ner", Probe(-1, f1, 0.1, f1, counts), 1.0)
        for place, f1 in (("/a", 0.25), ("/b", 0.75))
    ]
    titles, _, cells = (
        [cell.strip() for cell in line.split("|")] for line in describe(found).splitlines()
    )
    assert titles[3:6] == ["/a/ner", "/b/ner", "average"]
    assert cells[3:6] == ["25.00", "75.00", "50.00"]


def test_a_layer_or_a_split_that_is_not_there_is_named(model, data, tmp_path):
    with pytest.raises(ValueError, match=r"layers=\[2\]: .* has layers 0 to 1"):
        probe(config_of(model, data), layers=(2,))
    for split, seed in (("train", 0), ("devel", 1)):
        write_tagged(tmp_path / "words" / f"{split}.tsv", tiny_sentences(20, seed=seed))
    with pytest.raises(ValueError, match="got no test split to probe"):
        probe(config_of(model, tmp_path / "words"))


def test_a_penalty_whose_optimum_is_not_reached_is_left_out(model, data, monkeypatch, caplog):
    fit, reached = LogisticRegression.fit, [0.01]

    def fit_a_little(self, *arguments):
        self.set_params(max_iter=500 if self.C in reached else 1)
        return fit(self, *arguments)

    monkeypatch.setattr(LogisticRegression, "fit", fit_a_little)
    assert probe(config_of(model, data))[0].strength == 0.01
    assert "not at its optimum" in caplog.text
    reached.clear()
    with pytest.raises(ValueError, match="layer -1: no tagger came to its optimum in 500 steps"):
        probe(config_of(model, data, max_train=40))


def test_data_that_the_tokenizer_cannot_read_are_an_error(model, tmp_path, caplog):
    """Nothing but [UNK]: whoever answers O for all of it may be right."""
    for split in ("train", "devel", "test"):
        write_tagged(tmp_path / "words" / f"{split}.tsv", [["नमस्ते", "दुनिया"]] * 8 + [["a", "b"]])
    config = config_of(model, tmp_path / "words")
    tokenizer = load_tokenizer(str(model), option="")
    with pytest.raises(ValueError, match=r"does not know many .*\(train \d+.\d\d%, .*test"):
        prepare_examples(config, tokenizer)
    config.max_unknown_share = 1.0
    caplog.clear()
    with caplog.at_level(logging.INFO):
        notes = prepare_examples(config, tokenizer).notes
    assert notes["unknown"]["test"] > 0.3
    assert "does not know ([UNK]): train" in caplog.text
