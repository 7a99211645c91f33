# SPDX-License-Identifier: Apache-2.0
"""The torch peer of a training step: tests/golden/step is what it says, and its modes agree.

That ours computes what lies there, test_step_golden.py shows without torch. What is left here is
about code that only runs in torch.
"""

import dataclasses
import functools
import json

import numpy as np
import pytest

from edad_jax.data import masking
from tests import golden_step
from tests.golden_step import Case
from tests.tiny_run import run_command, write_config_file
from tests.tiny_steps import tiny_rows

torch = pytest.importorskip("torch")
from benchmarks import torch_nets, torch_update  # noqa: E402  (they import torch)
from tests.golden import make_step_golden  # noqa: E402

PLAIN, TUNED = torch_update.MODES["plain"], torch_update.MODES["tuned"]
EXACT = {"plain": PLAIN, "tuned": dataclasses.replace(TUNED, autocasts=False)}
METHODS = ("edad", "adaptation", "distillation")


@functools.cache
def torch_step(method, mode):
    """Returns (terms and loss, the nets after backward) of the peer, on padded rows."""
    nets = golden_step.make_nets()
    loaded = torch_update.load_nets(nets, *golden_step.make_params(method), mode, device="cpu")
    batch = torch_update.torch_batch(golden_step.masked_rows(method, "padded", 0), device="cpu")
    terms = torch_update.loss_terms(loaded, nets, batch, method=method, mode=mode, with_nsp=True)
    loss = torch_update.total_loss(terms, method, 0.5)
    loss.backward()
    return {name: term.item() for name, term in terms.items()} | {"loss": loss.item()}, loaded


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("case", golden_step.CASES, ids=str)
def test_golden_files_are_what_torch_says(case, mode):
    golden_step.check_inputs(golden_step.load_step_golden().numbers["inputs"])
    got = make_step_golden.torch_updates(case, EXACT[mode])
    # `tuned` has no BertAdam: after its first update it is another run.
    golden_step.assert_updates(got, case, updates=2 if mode == "plain" else 1)
    if mode == "plain" and case.updates_parameters:
        golden_step.assert_parameters(got, case)


def test_every_gradient_of_the_peer_is_ours_number_by_number():
    """The golden files keep a gradient's norm, which a turned or mirrored one has too."""
    case = Case("edad", 0.5, "padded")
    ours, peers = golden_step.our_updates(case), make_step_golden.torch_updates(case, PLAIN)
    for net, gradients in ours.gradients[0].items():
        for name, gradient in gradients.items():
            np.testing.assert_allclose(
                peers.gradients[0][net][name], gradient, rtol=1e-5, atol=1e-6, err_msg=name
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
    frozen = golden_step.make_params("edad")[1]["teacher"]
    assert without == {f"teacher.{name}" for name in torch_nets.torch_tensors(frozen)}
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
    masked = masking.mask_rows(batch, golden_step.masking_config())._replace(
        masked_positions_bm=np.array([[0, 2, 0]]),
        masked_labels_bm=np.array([[9, 8, 0]]),
        masked_weights_bm=np.array([[1.0, 1.0, 0.0]]),
    )
    labels_bt = torch_update.labels_everywhere(torch_update.torch_batch(masked, device="cpu"))
    assert labels_bt.tolist() == [[9, -100, 8, -100, -100, -100]]


@pytest.mark.parametrize("clip_by", ("net", "tensor"))
@pytest.mark.parametrize(
    "mode, name", [("plain", "bert_adam"), ("plain", "adamw"), ("tuned", "adamw")]
)
def test_golden_updates_are_what_torchs_optimisers_say(mode, name, clip_by):
    got = make_step_golden.torch_optimizer(name, clip_by, torch_update.MODES[mode])
    for leaf, array in got.items():
        expected = golden_step.load_step_golden().arrays[f"optimizer/{name}/{clip_by}/{leaf}"]
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)


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
