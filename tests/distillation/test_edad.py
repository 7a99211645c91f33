# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from edad_jax.data import masking
from edad_jax.distillation import losses
from edad_jax.distillation.nets import Nets, check_imitation, layer_map
from edad_jax.distillation.two_stages import ADAPTATION
from edad_jax.models import init
from edad_jax.training import state
from edad_jax.training.parallel import AXIS
from tests.tiny_models import assert_trees_equal
from tests.tiny_steps import (
    NO_DROPOUT,
    run_steps,
    tiny_nets,
    tiny_params,
    tiny_rows,
    tiny_settings,
)


def assert_close(ours, expected, tolerance=1e-6):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=tolerance, rtol=1e-5), ours, expected
    )


@functools.cache
def one_device_run(**changes):
    nets = tiny_nets(**NO_DROPOUT)
    return run_steps(nets, tiny_settings(nets, **changes))


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (12, 4, (2, 5, 8, 11)),
        (12, 6, (1, 3, 5, 7, 9, 11)),
        (6, 3, (1, 3, 5)),
        (6, 4, (1, 2, 4, 5)),
        (12, 1, (11,)),
        (3, 3, (0, 1, 2)),
    ],
)
def test_layer_map(teacher, student, expected):
    assert layer_map(teacher, student) == expected


def test_a_student_deeper_than_its_teacher_is_an_error():
    with pytest.raises(ValueError, match="4 layers cannot imitate a teacher of 3"):
        layer_map(3, 4)


def test_nets_with_other_head_counts_are_an_error_that_names_the_option():
    nets = tiny_nets()
    other = tiny_nets(num_attention_heads=2)
    with pytest.raises(ValueError, match="config.student.num_attention_heads=2"):
        check_imitation(dataclasses.replace(nets, teacher=other.teacher))


def test_the_fused_step_equals_a_teacher_step_and_a_student_step_taken_apart():
    """The student's step is written out here: own gradient, own optimiser, teacher held fixed."""
    nets = tiny_nets(**NO_DROPOUT)
    settings = tiny_settings(nets)
    params, frozen = tiny_params(nets)
    fused, fused_metrics, _ = run_steps(nets, settings, steps=1)
    apart, _, _ = run_steps(nets, settings, method="adaptation", steps=1)
    assert_close(fused.params["teacher"], apart.params["teacher"])

    batch = masking.mask_rows(tiny_rows(), settings.masking)
    teacher_output, _, _ = jax.jit(functools.partial(nets.teacher.apply, taps=nets.teacher_taps))(
        {"params": params["teacher"] | frozen["teacher"]}, batch
    )
    counts = losses.count_targets(batch)

    def student_loss(student):
        output, mlm_logits, nsp_logits = nets.student.apply(
            {"params": student}, batch, taps=nets.student_taps
        )
        project = functools.partial(nets.projection.apply, {"params": student["projection"]})
        mask_bt = batch.mask_bt
        distillation = sum(
            losses.attention_loss(ours, its, mask_bt).sum() / counts.pairs
            for ours, its in zip(output.heads, teacher_output.heads, strict=True)
        ) + sum(
            losses.hidden_loss(project(ours), its, mask_bt).sum() / counts.tokens
            for ours, its in zip(
                (output.embedding_btd, *output.hidden_btd),
                (teacher_output.embedding_btd, *teacher_output.hidden_btd),
                strict=True,
            )
        )
        adaptation = (
            losses.mlm_loss(mlm_logits, batch).sum() / counts.masked
            + losses.nsp_loss(nsp_logits, batch).sum() / counts.examples
        )
        alpha = 1.0  # linear, step 0
        return alpha * distillation + (1 - alpha) * adaptation

    tx = settings.optimizers["student"]

    @jax.jit
    def update(student):
        gradient = jax.grad(student_loss)(student)
        updates, _ = tx.update(gradient, tx.init(student), student)
        return gradient, optax.apply_updates(student, updates)

    gradient, updated = update(params["student"])
    assert_close(fused.params["student"], updated, 1e-5)
    np.testing.assert_allclose(
        fused_metrics["student/grad_norm"], optax.tree.norm(gradient), rtol=1e-5
    )


def test_distillation_sends_no_gradient_to_the_teacher():
    """Whatever alpha says, the teacher takes the same step."""
    only_distillation, _, _ = one_device_run(alpha="only_distillation")
    only_adaptation, _, _ = one_device_run(alpha="only_adaptation")
    assert_trees_equal(only_distillation.params["teacher"], only_adaptation.params["teacher"])
    first = jax.tree.leaves(only_distillation.params["student"])
    second = jax.tree.leaves(only_adaptation.params["student"])
    assert any((a != b).any() for a, b in zip(first, second, strict=True))


def test_alpha_zero_is_adaptation_only():
    train_state, metrics, _ = one_device_run(alpha="only_adaptation")
    terms = ("teacher/mlm", "teacher/nsp", "student/mlm", "student/nsp")
    np.testing.assert_allclose(metrics["loss"], sum(metrics[t] for t in terms), rtol=1e-6)
    initial, _ = tiny_params(tiny_nets(**NO_DROPOUT))
    projection = train_state.params["student"]["projection"]["dense"]
    # The projection learns by distillation only; decay alone moved it, its bias not at all.
    shrunk = (1 - 1e-2 * 0.01) ** 2 * initial["student"]["projection"]["dense"]["kernel"]
    np.testing.assert_allclose(projection["kernel"], shrunk, atol=1e-7)
    np.testing.assert_array_equal(projection["bias"], 0.0)


def test_the_base_never_changes_and_everything_else_does():
    nets = tiny_nets(**NO_DROPOUT)
    params, frozen = tiny_params(nets)
    train_state, _, frozen_after = one_device_run()
    assert_trees_equal(frozen_after, jax.device_get(frozen))
    assert set(frozen["teacher"]) == {"base", "pooler"}
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), train_state.params, params)
    still = [
        jax.tree_util.keystr(path)
        for path, moved in jax.tree_util.tree_leaves_with_path(changed)
        if not moved
    ]
    assert still == []


def test_xla_computes_no_gradient_of_the_base():
    """The frozen step is cheaper, by XLA's count, than the one that trains the base too."""

    def flops(frozen_parts):
        nets = tiny_nets(**NO_DROPOUT)
        settings = tiny_settings(nets)
        params = init.init_params(nets.teacher, (0,), gate_bias=0.0)
        trained, frozen = state.freeze(params, frozen_parts)
        train_state = state.begin({"teacher": trained}, settings.optimizers)
        step = jax.vmap(
            ADAPTATION.make_step(nets, settings),
            in_axes=(None, None, 0),
            out_axes=None,
            axis_name=AXIS,
            axis_size=1,
        )
        batch = jax.tree.map(lambda x: x[None], tiny_rows())
        compiled = jax.jit(step).lower(train_state, {"teacher": frozen}, batch).compile()
        return compiled.cost_analysis()["flops"]

    base = tiny_nets().teacher.config.base
    tokens, width = 8 * 18, base.hidden_size
    block = 4 * width**2 + 2 * width * base.intermediate_size
    weight_gradients = 2 * tokens * block * base.num_hidden_layers
    saved = flops(()) - flops(("base", "pooler"))
    assert saved > 0.9 * weight_gradients


@pytest.mark.parametrize("method", ["edad", "distillation"])
def test_micro_batches_add_up_to_the_batch(method):
    nets = tiny_nets(**NO_DROPOUT)
    whole, whole_metrics, _ = run_steps(nets, tiny_settings(nets), method=method)
    parts, parts_metrics, _ = run_steps(
        nets, tiny_settings(nets, accumulate_steps=4), method=method
    )
    assert_close(parts_metrics, whole_metrics)
    assert_close(parts.params, whole.params, 2e-6)


def test_four_devices_match_one():
    nets = tiny_nets(**NO_DROPOUT)
    one, one_metrics, _ = one_device_run()
    four, four_metrics, _ = run_steps(nets, tiny_settings(nets), devices=4)
    assert_close(four_metrics, one_metrics)
    assert_close(four.params, one.params)


def test_pmap_matches_shard_map():
    nets = tiny_nets()  # with dropout: the engines also draw the same numbers
    settings = tiny_settings(nets)
    pmap, pmap_metrics, _ = run_steps(nets, settings, devices=4)
    shard_map, shard_map_metrics, _ = run_steps(nets, settings, devices=4, engine="shard_map")
    assert_close(shard_map_metrics, pmap_metrics)
    assert_close(shard_map.params, pmap.params)


def test_devices_draw_different_dropout():
    nets = tiny_nets()
    settings = tiny_settings(nets)
    one, _, _ = run_steps(nets, settings, devices=1, steps=1)
    four, _, _ = run_steps(nets, settings, devices=4, steps=1)
    table = lambda s: s.params["student"]["base"]["embeddings"]["word"]["embedding"]  # noqa: E731
    assert (table(one) != table(four)).any()


def test_distillation_trains_the_student_alone_on_unmasked_text():
    nets = tiny_nets(**NO_DROPOUT)
    train_state, metrics, _ = run_steps(nets, tiny_settings(nets), method="distillation")
    assert set(train_state.params) == {"student"}
    np.testing.assert_allclose(
        metrics["loss"], metrics["distill/attention"] + metrics["distill/hidden"], rtol=1e-6
    )
    first = run_steps(nets, tiny_settings(nets), method="distillation", steps=1)[1]
    fused = run_steps(nets, tiny_settings(nets), steps=1)[1]
    assert first["distill/hidden"] != fused["distill/hidden"]  # the fused step reads masked text


def test_a_student_without_extension_learns_from_a_teacher_with_one():
    nets = tiny_nets(student_extension=False, **NO_DROPOUT)
    losses_seen = [
        run_steps(nets, tiny_settings(nets, alpha="only_distillation"), steps=steps)[1]["loss"]
        for steps in (1, 6)
    ]
    assert losses_seen[1] < losses_seen[0]


def test_the_losses_fall():
    """On one batch: its words are random, so nothing could be learned from one for another."""
    nets = tiny_nets(**NO_DROPOUT)
    settings = tiny_settings(nets, alpha="same")
    first = run_steps(nets, settings, steps=1, same_rows=True)[1]
    last = run_steps(nets, settings, steps=8, same_rows=True)[1]
    for term in ("teacher/mlm", "student/mlm", "distill/hidden"):
        assert last[term] < first[term], term


def test_bfloat16_products_give_nearly_the_losses_of_float32():
    nets = tiny_nets(**NO_DROPOUT)
    halves = Nets(
        *(net.clone(dtype=jax.numpy.bfloat16) for net in (nets.teacher, nets.student)),
        nets.projection.clone(dtype=jax.numpy.bfloat16),
    )
    expected = run_steps(nets, tiny_settings(nets), steps=1)
    got = run_steps(halves, tiny_settings(halves), steps=1)
    for term in ("teacher/mlm", "student/mlm", "distill/attention", "distill/hidden"):
        np.testing.assert_allclose(got[1][term], expected[1][term], rtol=2e-2, err_msg=term)
    assert {x.dtype for x in jax.tree.leaves(got[0].params)} == {np.dtype("float32")}
