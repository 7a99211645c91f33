# SPDX-License-Identifier: Apache-2.0
"""The batch size that fits: found by compiling, and kept for the whole run."""

import json

import jax
import pytest

from edad_jax.distillation import edad
from edad_jax.distillation.settings import check_settings
from edad_jax.distillation.train import train
from edad_jax.distillation.two_stages import ADAPTATION
from edad_jax.training import batch_size, state
from tests.tiny_run import tiny_config
from tests.tiny_steps import NO_DROPOUT, tiny_nets, tiny_params, tiny_settings


def fixed_and_per_row(rows):
    return 1_000 + 10 * rows


@pytest.mark.parametrize(
    ("budget", "unit", "most", "expected"),
    [
        (1_000 + 10 * 64, 1, 10_000, 64),
        (1_000 + 10 * 127, 1, 10_000, 64),
        (1_000 + 10 * 5, 1, 10_000, 4),  # below the first one tried
        (1_000 + 10 * 1, 1, 10_000, 1),
        (1_000 + 10 * 100, 3, 10_000, 96),  # three micro-batches
        (1e9, 1, 50, 32),  # no more than there are rows
        (1e9, 1, 3, 2),
        (1e9, 4, 1, 4),
    ],
)
def test_the_largest_batch_that_fits_is_found(budget, unit, most, expected):
    found = batch_size.find_batch_size(fixed_and_per_row, budget=budget, unit=unit, most=most)
    assert found == expected


def test_where_nothing_fits_the_error_says_what_it_takes():
    with pytest.raises(ValueError, match=r"2 row.s. take 1.02 GB, expected at most 0.50 GB.*remat"):
        batch_size.find_batch_size(
            lambda rows: 1e6 * fixed_and_per_row(rows), budget=5e8, unit=2, most=64
        )


def test_the_budget_is_given_or_asked_of_the_device():
    class Gpu:
        device_kind = "made up"

        def memory_stats(self):
            return {"bytes_limit": 1_000, "bytes_in_use": 3}

    assert batch_size.memory_budget(0.0, Gpu()) == 900
    assert batch_size.memory_budget(2.0, Gpu()) == 2e9
    with pytest.raises(ValueError, match="a cpu does not tell.*--config.memory_gb=16"):
        batch_size.memory_budget(0.0, jax.devices()[0])


@pytest.mark.parametrize("text", ["many", "-4", "1.5", ""])
def test_what_is_neither_a_number_nor_auto_is_told_at_once(tmp_path, text):
    with pytest.raises(ValueError, match="batch_size_per_device=.*expected a number of rows, auto"):
        check_settings(tiny_config(tmp_path, batch_size_per_device=text))


def test_a_program_too_large_to_compile_does_not_fit(monkeypatch):
    def compile(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile)
    nets = tiny_nets()
    settings, (trained, frozen) = tiny_settings(nets), tiny_params(nets)
    step = edad.make_edad_step(nets, settings)
    train_state = state.begin(trained, settings.optimizers)
    assert batch_size.step_bytes(step, train_state, frozen, rows=2, length=8) == float("inf")


def test_more_rows_take_more_memory():
    nets = tiny_nets(**NO_DROPOUT)  # quick to compile
    settings, (trained, frozen) = tiny_settings(nets), tiny_params(nets)
    step = ADAPTATION.make_step(nets, settings)
    train_state = jax.eval_shape(
        lambda trained: state.begin(trained, settings.optimizers), {"teacher": trained["teacher"]}
    )
    few, many = (
        batch_size.step_bytes(step, train_state, frozen, rows=rows, length=18) for rows in (2, 32)
    )
    # State in, which becomes state out, and frozen weights: no less than that, however few rows.
    held = sum(leaf.size * 4 for leaf in jax.tree.leaves((train_state, frozen)))
    # One number a piece and layer is kept, at the very least.
    assert held < few < few + 4 * 30 * 18 * 24 * 2 < many


def test_what_auto_finds_is_recorded_and_stays(finished, tmp_path, monkeypatch):
    tried = []

    def step_bytes(step, train_state, frozen, *, rows, length, packed):
        assert length == 32 and not packed and set(train_state.params) == {"teacher", "student"}
        tried.append(rows)
        return 1e9 * fixed_and_per_row(rows)

    monkeypatch.setattr(batch_size, "step_bytes", step_bytes)

    def run(**changes):
        # The program of the finished run: two rows on each of four devices are its batch of 8.
        train(tiny_config(finished.inputs, batch_size=4, **changes), str(tmp_path / "run"))

    def recorded():
        return json.loads((tmp_path / "run" / "config.json").read_text())["batch_size"]

    with pytest.raises(ValueError, match=r"1 row.s. take 1010.00 GB, expected at most 1000.00 GB"):
        run(batch_size_per_device="auto", memory_gb=1_000.0)
    assert recorded() == 4  # as given; nothing was found
    tried.clear()
    run(batch_size_per_device="auto", memory_gb=1_030.0)
    assert tried == [8, 4, 2] and recorded() == 2 * 4
    # The run has begun: it goes on with what it has, whatever fits now.
    run(batch_size_per_device="auto", memory_gb=1_000.0)
    assert tried == [8, 4, 2] and recorded() == 2 * 4
    with pytest.raises(ValueError, match="config.batch_size: got 16, the run has 8"):
        run(batch_size_per_device="4")
