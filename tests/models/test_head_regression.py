# SPDX-License-Identifier: Apache-2.0
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.distillation import losses
from edad_jax.models.config import ExBertConfig
from edad_jax.models.config_json import bert_config
from edad_jax.models.exbert import ExBert
from edad_jax.models.head_regression import regress_head
from tests.tiny_models import assert_trees_equal, random_params, tiny_batch, tiny_exbert_config

CONFIG = tiny_exbert_config(added_words=7)
MODEL = ExBert(CONFIG, jnp.float32)
PIECES = 68


def text(seed, *, rows, is_repeated=True):
    """Returns rows that say one piece over and over; so do the pieces behind their masks, or not.

    Some pieces come often, others hardly ever.
    """
    random = np.random.default_rng(seed)
    shares = 1 / np.arange(1, PIECES)
    pieces_b = random.choice(np.arange(1, PIECES), size=rows, p=shares / shares.sum())
    others_b = random.permutation(pieces_b)
    batch = tiny_batch(PIECES, rows=1)
    ids_bt = np.tile(pieces_b[:, None], (1, 11)).astype(np.int32)
    ids_bt[:, [1, 3]] = 5  # the mask
    labels_b = pieces_b if is_repeated else others_b
    return jax.tree.map(lambda x: np.repeat(x, rows, axis=0), batch)._replace(
        ids_bt=ids_bt, masked_labels_bm=np.tile(labels_b[:, None], (1, 2)).astype(np.int32)
    )


def log_shares():
    shares = np.zeros(PIECES) + 1e-3
    shares[1:] = 1 / np.arange(1, PIECES)
    return np.log(shares / shares.mean()).astype(np.float32)


def mlm_of(params, batch):
    """Returns (loss in nats, share of right guesses) of the net itself."""
    _, logits, _ = MODEL.apply({"params": params}, batch)
    loss = losses.mlm_loss(logits, batch).sum() / batch.masked_weights_bm.sum()
    guess_bm = np.concatenate(logits, axis=-1).argmax(axis=-1)
    return float(loss), float((guess_bm == batch.masked_labels_bm).mean())


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


def test_a_head_by_regression_finds_words_of_text_that_it_has_not_seen(params, caplog):
    with caplog.at_level(logging.INFO):
        fitted = regress_head(
            "student", MODEL, params, [text(n, rows=250) for n in range(4)], log_shares()
        )
    assert "student: an MLM head by regression on 1,750 masked pieces" in caplog.text
    unseen = text(9, rows=250)
    loss, accuracy = mlm_of(fitted, unseen)
    frequencies_loss = np.mean(
        np.log(np.exp(log_shares()).sum()) - log_shares()[unseen.masked_labels_bm]
    )
    assert loss < 0.7 * frequencies_loss
    assert accuracy > 0.5  # the most frequent piece has a fifth of the text
    assert_trees_equal(*({**tree, "mlm": {}} for tree in (fitted, params)))


def test_where_features_say_nothing_the_head_has_the_frequencies_alone(params):
    noise = [text(n, rows=250, is_repeated=False) for n in range(4)]
    kept = regress_head("student", MODEL, params, noise, log_shares())
    np.testing.assert_array_equal(kept["mlm"]["bias"], log_shares())
    assert_trees_equal(kept["mlm"]["transform"], params["mlm"]["transform"])


def test_too_few_masked_pieces_are_told(params, caplog):
    kept = regress_head("teacher", MODEL, params, [text(0, rows=20)], log_shares())
    assert "teacher: 40 masked pieces are too few for a head" in caplog.text
    assert_trees_equal(kept["mlm"]["transform"], params["mlm"]["transform"])


def test_a_head_without_biases_cannot_begin_by_regression():
    config = ExBertConfig(bert_config({"model_type": "modernbert"}), None, 0)
    with pytest.raises(ValueError, match="needs an MLM head with biases, and that of a modernbert"):
        regress_head("teacher", ExBert(config, jnp.float32), {}, [], log_shares())
