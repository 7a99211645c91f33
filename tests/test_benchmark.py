# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from edad_jax.benchmark import benchmark_steps
from tests.tiny_run import tiny_config


def test_one_pass_is_counted_against_the_sum_of_two_stages():
    config = tiny_config(Path("unused"), parallel__engine="pmap")
    result = benchmark_steps(config, (6, 120, 3, 480), repeats=2, peak_tflops=2.0)
    steps = result["steps"]
    assert set(steps) == {"edad", "adaptation", "distillation"}
    assert [len(row["seconds_all"]) for row in steps.values()] == [2, 2, 2]
    flops = {method: row["xla_gflop"] for method, row in steps.items()}
    expected = (flops["adaptation"] + flops["distillation"]) / flops["edad"]
    assert result["two_stages_over_one_pass"]["xla_gflop"] == expected
    # The second stage runs the teacher once more; a teacher wide enough that this outweighs the
    # MLM head, which only one of the two stages has for the student.
    assert expected > 1
    assert flops["edad"] > max(flops["adaptation"], flops["distillation"])
    for row in steps.values():
        counted = row["xla_gflop"] * result["devices"]  # XLA counts one device's program
        assert 0.8 * counted < row["model_gflop"] < counted
        assert row["mfu"] == row["tflops"] / (2.0 * result["devices"])
    assert result["two_stages_over_one_pass"]["model_gflop"] > 1
