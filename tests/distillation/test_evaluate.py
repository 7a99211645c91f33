# SPDX-License-Identifier: Apache-2.0
"""Shares that were counted by hand, from nets whose answers are known."""

import math

import jax
import numpy as np
import pytest

from edad_jax.data.batches import Rows, padded_batches
from edad_jax.data.masking import MaskingConfig
from edad_jax.distillation import evaluate
from edad_jax.training.parallel import Parallel
from edad_jax.types import Batch
from tests.tiny_models import random_params
from tests.tiny_steps import CLS, MASK, NO_DROPOUT, SEP, tiny_nets

WORDS, COMMON, RARE = 16, 7, 8
MASKING = MaskingConfig(WORDS, MASK, (CLS, SEP), mlm_probability=0.2, max_predictions=4, seed=0)


class Always:
    """A net that gives one word, and one answer about the next sentence, whatever it reads."""

    def __init__(self, word, answer):
        self._word, self._answer = word, answer

    def apply(self, variables, batch):
        logits_bmv = 10.0 * jax.nn.one_hot(np.full(batch.masked_labels_bm.shape, self._word), WORDS)
        logits_bc = jax.nn.one_hot(np.full(batch.next_sentence_b.shape, self._answer), 2)
        return None, (logits_bmv[..., :2], logits_bmv[..., 2:]), logits_bc


class Knowing:
    """A net that has seen the answers."""

    def apply(self, variables, batch):
        return (
            None,
            (10.0 * jax.nn.one_hot(batch.masked_labels_bm, WORDS),),
            jax.nn.one_hot(batch.next_sentence_b, 2),
        )


def rows(common, rare, empty=0):
    """Returns rows of ten pieces, two of them masked; one word makes up a row.

    The first row alone is followed by another document's sentence. Empty rows are made as to
    please a net that says COMMON and 1.
    """
    count = common + rare + empty
    ids_bt = np.full((count, 12), COMMON, np.int32)
    ids_bt[common : common + rare] = RARE
    ids_bt[:, 0], ids_bt[:, 4], ids_bt[:, 9], ids_bt[:, 10:] = CLS, SEP, SEP, 0
    length_b = np.full(count, 10, np.int32)
    next_sentence_b = np.zeros(count, np.int32)
    next_sentence_b[0] = 1
    length_b[common + rare :] = 0
    next_sentence_b[common + rare :] = 1
    return Batch(
        ids_bt=ids_bt,
        segment_b_start_b=np.full(count, 5, np.int32),
        length_b=length_b,
        next_sentence_b=next_sentence_b,
        row_b=np.arange(count, dtype=np.int32),
        epoch_b=np.zeros(count, np.int32),
    )


def measure(models, batches, *, devices=1, params=None, masking=MASKING):
    parallel = Parallel("auto", jax.devices()[:devices])
    step = parallel.compile(
        evaluate.make_evaluation_step(models, masking), replicated_arguments=2, donate=False
    )
    params = parallel.replicate(params or {})
    return evaluate.mean_over(step(params, {}, parallel.shard_batch(batch)) for batch in batches)


def test_accuracies_losses_and_agreement_are_counted_right():
    figures = measure({"teacher": Knowing(), "student": Always(COMMON, 1)}, [rows(2, 4)])
    right = math.log(math.exp(10) + WORDS - 1) - 10
    assert figures == pytest.approx(
        {
            "heldout/teacher_mlm_accuracy": 1.0,
            "heldout/teacher_mlm_loss": right,
            "heldout/teacher_nsp_accuracy": 1.0,
            "heldout/student_mlm_accuracy": 2 / 6,
            "heldout/student_mlm_loss": right + 10 * 4 / 6,
            "heldout/student_nsp_accuracy": 1 / 6,
            "heldout/agreement": 2 / 6,
        },
        rel=1e-5,
        abs=1e-5,
    )


def test_nets_that_are_wrong_together_agree():
    figures = measure({"teacher": Always(5, 0), "student": Always(5, 0)}, [rows(2, 2)])
    assert figures["heldout/agreement"] == 1.0
    assert figures["heldout/student_mlm_accuracy"] == 0.0


def test_one_net_alone_agrees_with_nobody():
    figures = measure({"teacher": Knowing()}, [rows(2, 2)])
    assert set(figures) == {
        f"heldout/teacher_{x}" for x in ("mlm_accuracy", "mlm_loss", "nsp_accuracy")
    }


def test_padded_rows_do_not_count():
    models = {"teacher": Always(RARE, 0), "student": Always(COMMON, 1)}
    assert measure(models, [rows(2, 4, empty=2)]) == measure(models, [rows(2, 4)])


def test_batches_of_unequal_fill_weigh_by_what_they_hold():
    models = {"student": Always(COMMON, 0)}
    figures = measure(models, [rows(4, 0), rows(1, 0, empty=3), rows(0, 4)])
    assert figures["heldout/student_mlm_accuracy"] == pytest.approx(5 / 9)
    assert figures["heldout/student_nsp_accuracy"] == pytest.approx(6 / 9)


def test_nothing_to_predict_is_an_error_that_names_the_option():
    with pytest.raises(ValueError, match="config.heldout.fraction"):
        measure({"student": Knowing()}, [rows(0, 0, empty=4)])
    with pytest.raises(ValueError, match="config.heldout.fraction"):
        evaluate.mean_over([])


@pytest.fixture(scope="module")
def heldout(finished):
    return Rows(finished.workdir / "rows" / "heldout")


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 1), (8, 4), (20, 1)])
def test_batch_size_and_devices_change_nothing(heldout, batch_size, devices):
    nets = tiny_nets(
        vocab_size=heldout.manifest["vocabulary_size"] - 7,
        max_position_embeddings=32,
        **NO_DROPOUT,
    )
    models = {"teacher": nets.teacher, "student": nets.student}
    params = {net: random_params(model.config) for net, model in models.items()}
    masking = MaskingConfig(heldout.manifest["vocabulary_size"], 4, (2, 3), 0.15, 5, 0)

    def figures(batch_size, devices):
        batches = padded_batches(heldout, batch_size=batch_size, max_rows=18)
        return measure(models, batches, devices=devices, params=params, masking=masking)

    expected = figures(4, 1)
    assert 0 < expected["heldout/teacher_nsp_accuracy"] < 1
    assert figures(batch_size, devices) == pytest.approx(expected, rel=1e-6)


def test_speed_is_measured_for_each_net():
    nets = tiny_nets()
    models = {"teacher": nets.teacher, "student": nets.student}
    timed = {net: (model, random_params(model.config)) for net, model in models.items()}
    speed = evaluate.measure_speed(timed, length=16, rows=2, repeats=3)
    assert set(speed) == set(models)
    assert all(1 < rows_per_second < 1e7 for rows_per_second in speed.values())
