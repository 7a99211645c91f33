# SPDX-License-Identifier: Apache-2.0
"""The torch peer of a training step computes what ours computes, and its command writes times."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from edad_jax.data import masking
from edad_jax.distillation import methods
from edad_jax.models import init
from edad_jax.training import optimizer, state
from edad_jax.training.optimizer import OptimizerSettings
from edad_jax.training.parallel import Parallel
from tests.tiny_models import random_params
from tests.tiny_run import run_command, write_config_file
from tests.tiny_steps import NO_DROPOUT, tiny_nets, tiny_rows, tiny_settings

torch = pytest.importorskip("torch")
from benchmarks import torch_nets, torch_update

METHODS = ("edad", "adaptation", "distillation")
PLAIN, TUNED = torch_update.MODES["plain"], torch_update.MODES["tuned"]
EXACT = {"plain": PLAIN, "tuned": dataclasses.replace(TUNED, autocasts=False)}
FROZEN = ("base", "pooler")


def keeps_gradient():
    """Returns an optimiser that changes nothing; its state is the gradient."""
    return optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda gradients, state, params: (jax.tree.map(jnp.zeros_like, params), gradients),
    )


@functools.cache
def tiny_case(method):
    """Returns (nets, trained, frozen, settings): biases, norms and gates are random too."""
    nets = tiny_nets(**NO_DROPOUT)
    teacher = random_params(nets.teacher.config)
    student = random_params(nets.student.config, seed=1)
    random = np.random.default_rng(2)
    projection = init.init_projection(nets.projection, (2,))
    student["projection"] = jax.tree.map(
        lambda x: 0.2 * random.standard_normal(x.shape, np.float32), projection
    )
    teacher_trained, teacher_frozen = state.freeze(
        teacher, teacher if method == "distillation" else FROZEN
    )
    both = {"teacher": teacher_trained, "student": student}
    settings = dataclasses.replace(
        tiny_settings(nets, alpha=optax.constant_schedule(0.3)),
        optimizers={net: keeps_gradient() for net in both},
    )
    trained = {net: both[net] for net in methods.TRAINED_NETS[method]}
    return nets, trained, {"teacher": teacher_frozen}, settings


@functools.cache
def our_step(method):
    """Returns (metrics, {net: {torch's name: gradient}}) of our step, on one device."""
    nets, trained, frozen, settings = tiny_case(method)
    parallel = Parallel("pmap", jax.devices()[:1])
    step = parallel.compile(
        methods.METHODS[method].make_step(nets, settings), replicated_arguments=2, donate=False
    )
    done, metrics = step(
        parallel.replicate(state.begin(trained, settings.optimizers)),
        parallel.replicate(frozen),
        parallel.shard_batch(tiny_rows()),
    )
    gradients = {net: torch_nets.torch_tensors(tree) for net, tree in done.opt_state.items()}
    return jax.device_get(metrics), gradients


@functools.cache
def torch_step(method, mode):
    """Returns (terms and loss, the nets after backward) of the peer."""
    nets, trained, frozen, settings = tiny_case(method)
    rows = tiny_rows()
    batch = (
        masking.leave_unmasked(rows)
        if method == "distillation"
        else masking.mask_rows(rows, settings.masking)
    )
    loaded = torch_update.load_nets(nets, trained, frozen, mode, device="cpu")
    terms = torch_update.loss_terms(
        loaded,
        nets,
        torch_update.torch_batch(batch, device="cpu"),
        method=method,
        mode=mode,
        with_nsp=True,
    )
    loss = torch_update.total_loss(terms, method, 0.3)
    loss.backward()
    return {name: term.item() for name, term in terms.items()} | {"loss": loss.item()}, loaded


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("method", METHODS)
def test_losses_are_ours(method, mode):
    metrics, _ = our_step(method)
    ours = {
        name: float(value)
        for name, value in metrics.items()
        if name == "loss" or (name.split("/")[-1] in ("mlm", "nsp", "attention", "hidden"))
    }
    got, _ = torch_step(method, EXACT[mode])
    assert len(got) == {"edad": 7, "adaptation": 3, "distillation": 3}[method]
    assert got == pytest.approx(ours, rel=1e-5)


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_all_that_is_trained_are_ours(method, mode):
    _, expected = our_step(method)
    _, loaded = torch_step(method, EXACT[mode])
    assert set(loaded) == {"teacher"} | set(expected)
    for net, gradients in expected.items():
        got = {name: p for name, p in loaded[net].named_parameters() if p.requires_grad}
        assert set(got) == set(gradients)
        for name, gradient in gradients.items():
            ours = np.zeros(gradient.shape) if got[name].grad is None else got[name].grad
            np.testing.assert_allclose(
                ours, gradient, rtol=1e-5, atol=1e-5, err_msg=f"{net} {name}"
            )


def test_plain_and_tuned_have_the_same_gradients():
    plain, tuned = (torch_step("edad", mode)[1] for mode in EXACT.values())
    for (name, one), (_, other) in zip(
        plain.named_parameters(), tuned.named_parameters(), strict=True
    ):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("mode", (PLAIN, TUNED), ids=("plain", "tuned"))
def test_what_is_frozen_gets_no_gradient(mode):
    _, loaded = torch_step("edad", mode)
    without = {name for name, p in loaded.named_parameters() if p.grad is None}
    tiny = tiny_case("edad")[2]["teacher"]
    assert without == {f"teacher.{name}" for name in torch_nets.torch_tensors(tiny)}
    assert without == {name for name, p in loaded.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_gives_nearly_the_losses_of_float32(method):
    expected, _ = torch_step(method, PLAIN)
    got, loaded = torch_step(method, TUNED)
    assert got == pytest.approx(expected, rel=2e-2) and got != expected
    trained = [p for p in loaded.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {p.grad.dtype for p in trained if p.grad is not None}
    assert {p.dtype for p in trained} == {torch.float32}


def test_labels_stand_where_pieces_are_masked():
    """The third slot is not in use, and points at position 0, which the first has masked."""
    batch = tiny_rows(rows=1, length=6)
    masked = masking.mask_rows(batch, tiny_case("edad")[3].masking)._replace(
        masked_positions_bm=np.array([[0, 2, 0]]),
        masked_labels_bm=np.array([[9, 8, 0]]),
        masked_weights_bm=np.array([[1.0, 1.0, 0.0]]),
    )
    labels_bt = torch_update.labels_everywhere(torch_update.torch_batch(masked, device="cpu"))
    assert labels_bt.tolist() == [[9, -100, 8, -100, -100, -100]]


@pytest.mark.parametrize("clip_by", optimizer.CLIPPING)
@pytest.mark.parametrize(
    "mode, name", [("plain", "bert_adam"), ("plain", "adamw"), ("tuned", "adamw")]
)
def test_two_updates_are_ours(mode, name, clip_by):
    section = ConfigDict(
        {
            "name": name,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-6,
            "weight_decay": 0.1,
            "clip_norm": 0.5,
            "clip_by": clip_by,
        }
    )
    random = np.random.default_rng(0)
    draw = lambda: {  # noqa: E731
        "kernel": random.standard_normal((4, 3), np.float32),
        "bias": 0.01 * random.standard_normal(5, np.float32),  # too short to be clipped by itself
    }
    params = draw()
    ours = torch.nn.ParameterDict({leaf: torch.tensor(array) for leaf, array in params.items()})
    peer = torch_update.make_optimizer(ours.values(), section, torch_update.MODES[mode])
    tx = OptimizerSettings(**section).build(optax.linear_schedule(0.1, 0.0, 10))
    opt_state = tx.init(params)
    for rate in (0.1, 0.09):
        gradients = draw()
        updates, opt_state = tx.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        for leaf, gradient in gradients.items():
            ours[leaf].grad = torch.tensor(gradient)
        torch_update.clip_gradients(
            ours.values(), section.clip_norm, clip_by, fuses=torch_update.MODES[mode].fuses
        )
        for group in peer.param_groups:
            group["lr"] = rate
        peer.step()
    for leaf, expected in params.items():
        np.testing.assert_allclose(ours[leaf].detach(), expected, rtol=1e-5, atol=1e-6)


def test_the_command_times_what_it_is_asked_for(tmp_path):
    config = write_config_file(tmp_path / "tiny.py", tmp_path)
    out = tmp_path / "torch.json"
    done = run_command(
        f"--config={config}",
        "--teacher=2,24,3,40",
        "--modes=tuned,plain",
        "--methods=edad",
        "--repeats=2",
        "--warm_up=1",
        "--device=cpu",
        f"--out={out}",
        "--config.student.hidden_dropout_prob=0.2",
        script="../benchmarks/torch_step.py",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["torch"] == torch.__version__ and result["device"] == "cpu"
    assert result["threads"] >= 1 and result["batch"] == [8, 32]
    assert set(result["steps"]) == {"tuned", "plain"}
    for steps in result["steps"].values():
        assert set(steps) == {"edad"}
        for row in steps.values():
            assert len(row["seconds_all"]) == 2 and row["peak_gb"] is None
            assert row["seconds"] == pytest.approx(sum(row["seconds_all"]) / 2)
            assert row["tokens_per_second"] == pytest.approx(8 * 32 / row["seconds"])
    assert done.stdout.count("(warm-up)") == 2 and "| tuned" in done.stdout
