# SPDX-License-Identifier: Apache-2.0
"""DistilBERT's triple loss and MiniLM's relations, as steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import edad
from edad_jax.data import masking
from edad_jax.distillation import losses, triple
from edad_jax.distillation.minilm import MINILM, MiniLmSettings
from edad_jax.distillation.nets import Nets
from edad_jax.distillation.settings import check_settings
from edad_jax.distillation.triple import TripleSettings
from edad_jax.models.exbert import ExBert
from tests.tiny_models import tiny_exbert_config
from tests.tiny_steps import (
    NO_DROPOUT,
    run_steps,
    tiny_nets,
    tiny_params,
    tiny_rows,
    tiny_settings,
)

WEIGHTS = TripleSettings(soft=0.5, mlm=0.3, cosine=0.2, temperature=2.0, positions="masked")


def triple_settings(nets, weights=WEIGHTS, **changes):
    return tiny_settings(nets, alpha=weights.alpha(10), own=weights, **changes)


def log_softmax(x):
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("positions", triple.POSITIONS)
def test_the_three_terms_are_those_of_the_paper(positions):
    """Written out in numpy, from the logits and hidden states of the two nets."""
    nets = tiny_nets(**NO_DROPOUT)
    settings = triple_settings(nets, dataclasses.replace(WEIGHTS, positions=positions))
    params, frozen = tiny_params(nets)
    _, metrics, _ = run_steps(nets, settings, method="triple", steps=1)

    batch = masking.mask_rows(tiny_rows(), settings.masking)
    teacher_params = params["teacher"] | frozen["teacher"]
    student, mlm_logits, _ = nets.student.apply({"params": params["student"]}, batch)
    teacher, teacher_logits, _ = nets.teacher.apply({"params": teacher_params}, batch)
    mlm_bmv, teacher_bmv = (np.concatenate(each, -1) for each in (mlm_logits, teacher_logits))
    chosen = np.asarray(batch.masked_weights_bm) > 0
    right = np.take_along_axis(
        log_softmax(np.asarray(mlm_bmv)), np.asarray(batch.masked_labels_bm)[..., None], -1
    )
    assert metrics["student/mlm"] == pytest.approx(-right[chosen].mean(), rel=1e-5)
    if positions == "all":
        mask_bt = np.asarray(batch.mask_bt)
        where = np.broadcast_to(np.arange(mask_bt.shape[1]), mask_bt.shape)
        mlm_bmv, teacher_bmv = (
            model.apply({"params": each}, output.last_hidden_btd, where, method="mlm_logits")
            for model, each, output in (
                (nets.student, params["student"], student),
                (nets.teacher, teacher_params, teacher),
            )
        )
        chosen = mask_bt
    teacher_log = log_softmax(np.asarray(teacher_bmv)[chosen] / 2)
    student_log = log_softmax(np.asarray(mlm_bmv)[chosen] / 2)
    soft = 4 * (np.exp(teacher_log) * (teacher_log - student_log)).sum(-1).mean()
    assert metrics["distill/soft"] == pytest.approx(soft, rel=1e-4)

    mapped = nets.projection.apply(
        {"params": params["student"]["projection"]}, student.last_hidden_btd
    )
    mine, theirs = (np.asarray(x)[np.asarray(batch.mask_bt)] for x in (mapped, teacher[0]))
    cosine = (mine * theirs).sum(-1) / np.linalg.norm(mine, axis=-1)
    cosine = 1 - (cosine / np.linalg.norm(theirs, axis=-1)).mean()
    assert metrics["distill/cosine"] == pytest.approx(cosine, rel=1e-4)
    expected = 0.5 * soft + 0.3 * float(metrics["student/mlm"]) + 0.2 * cosine
    assert metrics["loss"] == pytest.approx(expected, rel=1e-4)


def test_a_teacher_that_learns_meanwhile_learns_as_if_alone():
    nets = tiny_nets(**NO_DROPOUT)
    together, metrics, _ = run_steps(
        nets, triple_settings(nets), method="triple_adaptation", steps=1
    )
    alone, alone_metrics, _ = run_steps(nets, triple_settings(nets), method="adaptation", steps=1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        together.params["teacher"],
        alone.params["teacher"],
    )
    assert metrics["teacher/mlm"] == pytest.approx(alone_metrics["teacher/mlm"], rel=1e-6)
    assert metrics["alpha"] == pytest.approx(0.7)


def test_four_devices_give_what_one_gives():
    nets = tiny_nets(**NO_DROPOUT)
    settings = triple_settings(nets, dataclasses.replace(WEIGHTS, positions="all"))
    one, one_metrics, _ = run_steps(nets, settings, method="triple", steps=1)
    four, four_metrics, _ = run_steps(nets, settings, method="triple", steps=1, devices=4)
    assert one_metrics["loss"] == pytest.approx(four_metrics["loss"], rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one.params, four.params)


def test_soft_loss_is_zero_and_flat_where_the_student_is_its_teacher():
    logits_bmv = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.float32)
    ones_bm = jnp.ones((2, 3))

    def loss(student_bmv):
        return losses.soft_loss(student_bmv, logits_bmv, ones_bm, 2.0).sum()

    value, gradient = jax.value_and_grad(loss)(logits_bmv)
    assert abs(value) < 1e-5 and np.abs(gradient).max() < 1e-6
    assert loss(logits_bmv[::-1]) > 0.1


def test_cosine_loss_is_finite_for_vectors_of_zeros():
    zeros_btd = jnp.zeros((1, 2, 3))
    mask_bt = jnp.array([[True, False]])
    gradient = jax.grad(lambda x: losses.cosine_loss(x, zeros_btd, mask_bt).sum())(zeros_btd)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"soft": 0.5, "mlm": 0.5, "cosine": 0.5}, "together 1.5; expected weights"),
        ({"soft": 1.5, "mlm": -0.5, "cosine": 0.0}, "mlm=-0.5"),
        ({"temperature": 0.0}, "temperature=0.0, expected more than 0"),
        ({"positions": "some"}, "'some' is not one of masked, all"),
        ({"soft": 0.0, "mlm": 1.0, "cosine": 0.0, "schedule": "linear"}, "leaves one of them none"),
        ({"schedule": "lineer"}, "config.triple.schedule='lineer' is not one of constant, linear"),
    ],
)
def test_weights_that_make_no_sense_are_told_before_any_work(section, message):
    config = edad.get_config()
    config.method = "triple"
    config.triple.update(section)
    with pytest.raises(ValueError, match=message):
        check_settings(config)


def test_a_schedule_moves_the_weights_and_their_sum_stays_one():
    alpha = TripleSettings(schedule="linear").alpha(10)
    assert [float(alpha(step)) for step in (0, 5, 10)] == [1.0, 0.5, 0.0]
    assert float(TripleSettings().alpha(10)(3)) == 0.75


def relations(vectors_thk, heads):
    """MiniLMv2's relations of one row, in numpy."""
    length = len(vectors_thk)
    cut = vectors_thk.reshape(length, heads, -1).transpose(1, 0, 2)
    return log_softmax(cut @ cut.transpose(0, 2, 1) / np.sqrt(cut.shape[-1]))


def test_relation_loss_compares_nets_of_other_heads_and_widths_and_leaves_padding_out():
    random = np.random.default_rng(0)
    student = random.normal(size=(1, 5, 2, 6)).astype(np.float32)  # 2 heads, 12 wide
    teacher = random.normal(size=(1, 5, 3, 8)).astype(np.float32)  # 3 heads, 24 wide
    mask_bt = np.array([[True] * 4 + [False]])
    got = losses.relation_loss(student, teacher, mask_bt, 4)
    mine, theirs = relations(student[0, :4], 4), relations(teacher[0, :4], 4)
    expected = (np.exp(theirs) * (theirs - mine)).sum(-1).mean(0).sum()
    np.testing.assert_allclose(got, [expected], rtol=1e-5)
    student[0, 4], teacher[0, 4] = 99, -99
    np.testing.assert_allclose(losses.relation_loss(student, teacher, mask_bt, 4), got, rtol=1e-6)


def test_a_student_with_other_heads_learns_its_teachers_relations():
    teacher = ExBert(tiny_exbert_config(**NO_DROPOUT), jnp.float32)
    sizes = {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1}
    student = ExBert(tiny_exbert_config(blocks=False, **sizes, **NO_DROPOUT), jnp.float32)
    nets = Nets(teacher, student, tiny_nets().projection)
    MINILM.check_nets(nets, MiniLmSettings(6))
    with pytest.raises(ValueError, match="relation_heads=8 does not divide the student's width"):
        MINILM.check_nets(nets, MiniLmSettings(8))
    settings = tiny_settings(nets, own=MiniLmSettings(6))
    _, first, _ = run_steps(nets, settings, method="minilm", steps=1, same_rows=True)
    _, later, frozen = run_steps(nets, settings, method="minilm", steps=12, same_rows=True)
    assert {"distill/query", "distill/key", "distill/value"} <= set(first)
    assert later["loss"] < 0.7 * first["loss"]
    untouched = tiny_params(nets)[1]["teacher"]["base"]
    jax.tree.map(np.testing.assert_array_equal, frozen["teacher"]["base"], untouched)
