# SPDX-License-Identifier: Apache-2.0
"""The forecast of an update: figures, report, and the command; mostly from a short program."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from benchmarks import aot_environment, forecast, measured
from benchmarks.ahead import Program, on_target
from benchmarks.forecast_report import markdown_report, write_report
from benchmarks.step import Case, random_run
from benchmarks.targets import TARGETS
from tests.tiny_run import run_command, tiny_config, write_config_file

HERE = Path(__file__).parent
TEACHER, WORDS = (1, 48, 3, 96), 300
GB = 10**9
MEMORY = {"arguments": 2 * GB, "results": GB, "reused": GB, "temporaries": 8 * GB, "peak": 10 * GB}


def case_of(**changes):
    config = tiny_config(Path("unused"), **{"dtype": "auto"} | changes)
    return Case(config, TEACHER, "edad", words=WORDS)


@pytest.fixture(scope="module")
def figures():
    case, target = case_of(), TARGETS["h100x8"]
    weighed = case_of(dtype="float32", masking__smoothing=0.7)  # by counts, of which there are none
    program = Program(
        (HERE / "gpu_program.txt").read_text(),
        random_run(weighed.config, "edad", TEACHER, words=WORDS),
        MEMORY,
        model_gflop=1.0,
        trace_seconds=1.0,
        compile_seconds=2.0,
    )
    described = forecast.describe(case, target, program)
    largest = forecast.largest_batch(case, target, MEMORY)
    return {"target": "h100x8", **described, "largest_batch": largest, "measured": None}


def test_time_is_that_of_kernels_and_of_sums_that_nothing_hides(figures):
    exposed = sum(row["seconds"] - row["hidden_seconds"] for row in figures["collectives"])
    kernels = sum(row["seconds"] for row in figures["rows"])
    assert figures["milliseconds"] == pytest.approx(1e3 * (kernels + exposed))
    assert figures["tokens_per_second"] == pytest.approx(8 * 32 / figures["milliseconds"] * 1e3)
    peak = 8 * 989e3  # GFLOP/s
    assert figures["mfu"] == pytest.approx(1e3 / figures["milliseconds"] / peak)
    assert figures["kernels"] == 1 + 3 + 12 + 1 + 1 and figures["floor_kernels"] > 0


def test_products_are_told_by_type_and_those_in_float32_counted(figures):
    assert {name: row["count"] for name, row in figures["products"].items()} == {
        "bfloat16 x bfloat16 -> bfloat16": 2,
        "float32 x bfloat16 -> float32": 1,
        "float32 x float32 -> float32, highest precision": 1,
    }
    assert figures["float32_products"] == 2


def test_auto_is_bfloat16_for_an_accelerator_and_a_given_type_stays():
    assert on_target(case_of().config).dtype == "bfloat16"
    assert on_target(case_of(dtype="float32").config).dtype == "float32"


def test_the_largest_batch_lies_on_a_line_and_splits_over_the_devices():
    case, target = case_of(batch_size=128), TARGETS["h100x8"]
    alone = forecast.largest_batch(case, target, MEMORY)
    # 2 GB and 8 GB for 128 rows; 70 of 72 GB are for rows.
    assert alone["rows"] == 1_120 and alone["from"] == "one program"
    half = MEMORY | {"peak": 7 * GB}  # 4 GB, and 6 for 128
    both = forecast.largest_batch(case, target, MEMORY, half)
    assert both["gb_fixed"] == pytest.approx(4.0) and both["from"] == "two programs"
    assert both["rows"] == 68 * 128 // 6 // 8 * 8


def test_a_corpus_costs_hours_of_all_devices(figures):
    told = forecast.corpus_cost(
        figures | {"tokens_per_second": 1e5}, tokens=3.6e8, epochs=2.0, price_per_hour=3.0
    )
    assert told["hours"] == pytest.approx(2.0) and told["cost"] == pytest.approx(8 * 2.0 * 3.0)


def test_the_report_has_every_section_and_says_that_it_is_a_model(figures, tmp_path):
    corpus = forecast.corpus_cost(figures, tokens=5e8, epochs=3.0, price_per_hour=None)
    measured_there = {"seconds": 1e-3, "tokens_per_second": 1.0, "mfu": 0.5, "peak_gb": 9.0}
    shown = figures | {"corpus": corpus, "measured": measured_there}
    write_report(shown, tmp_path)
    text = (tmp_path / "compile.md").read_text()
    for word in (
        "# What an update will take on h100x8",
        "8 x NVIDIA H100, edad, bfloat16, batch 8 x 32 pieces",
        "nothing of this was run",
        "10.00 of 80",
        "1.0 measured,",
        "500,000,000 tokens, 3 epochs",
        "| all-reduce |",
        "float32 x bfloat16 -> float32",
        "No product and no sum makes a gradient of a frozen weight.",
        "85% of the memory's bandwidth",
        "70% of the peak",
    ):
        assert word in text, word
    assert json.loads((tmp_path / "compile.json").read_text())["kernels"] == figures["kernels"]
    assert (tmp_path / "compile.png").stat().st_size > 10_000


def test_gradients_of_frozen_weights_are_named_in_the_report(figures):
    text = markdown_report(figures | {"frozen_gradients": ["a product makes it"]})
    assert "**1 operation(s) make gradients of frozen weights:**\n\n- a product makes it" in text


def test_without_the_compiler_one_line_says_what_to_install(monkeypatch):
    def find_nothing(name):
        if "." in name:
            raise ModuleNotFoundError(name)
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)
    for name, extra in (("h100x1", "aot-gpu"), ("v5e-1", "aot-tpu")):
        with pytest.raises(ValueError, match=rf"pip install -c .* -e '\.\[{extra}\]'$"):
            aot_environment.prepare_environment(TARGETS[name])


def test_flags_and_variables_are_set_and_the_users_flags_kept(monkeypatch):
    monkeypatch.setattr(aot_environment, "is_installed", lambda platform: True)
    monkeypatch.delitem(sys.modules, "jax")
    environment = {"XLA_FLAGS": "--mine"}
    monkeypatch.setattr(aot_environment.os, "environ", environment)
    assert aot_environment.prepare_environment(TARGETS["h100x1"]) == {"XLA_FLAGS": "--mine"}
    assert environment["XLA_FLAGS"] == "--mine --xla_gpu_enable_triton_gemm=false"
    assert environment["JAX_PLATFORMS"] == "cpu"
    aot_environment.prepare_environment(TARGETS["v5e-1"])
    assert environment["TPU_SKIP_MDS_QUERY"] == "1"


def test_devices_are_found_by_the_names_that_linux_gives_them(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert not measured.is_present("gpu", tmp_path)
    (tmp_path / "dev" / "nvidia0").touch()
    assert measured.is_present("gpu", tmp_path) and not measured.is_present("tpu", tmp_path)


def test_a_step_runs_in_the_environment_that_was_given(monkeypatch):
    seen = {}

    def run_job(kind, job, environment):
        seen.update(job, kind=kind, environment=dict(measured.os.environ) | environment)
        return {"device": "NVIDIA H100 80GB HBM3", "devices": seen["devices"]}

    monkeypatch.setattr(measured, "run_job", run_job)
    monkeypatch.setattr(measured, "is_present", lambda platform: True)
    got = measured.measure(case_of(), TARGETS["h100x8"], {"MINE": "1"})
    assert got["devices"] == 8 and seen["kind"] == "step"
    assert seen["environment"] == {"MINE": "1"} and "PATH" in measured.os.environ
    assert measured.measure(case_of(), TARGETS["a100x8"], {}) is None  # another kind is here
    monkeypatch.setattr(measured, "is_present", lambda platform: False)
    assert measured.measure(case_of(), TARGETS["h100x8"], {}) is None


def test_the_command_names_what_it_wants(tmp_path):
    config = str(write_config_file(tmp_path / "tiny.py", tmp_path))
    done = run_command("--config", config, script="compile.py")
    assert done.returncode == 1 and "--target must have a value" in done.stderr
    done = run_command("--config", config, "--target=h900", script="compile.py")
    assert done.returncode == 1 and "expected one of h100x1, h100x8" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(
    not aot_environment.is_installed("gpu"), reason="the aot-gpu extra is not installed"
)
def test_a_step_is_compiled_for_a_gpu_that_is_not_here(tmp_path):
    config = str(write_config_file(tmp_path / "tiny.py", tmp_path, dtype="auto"))
    done = run_command(
        *("--config", config, "--target=h100x8", "--teacher=1,48,3,96", "--method=adaptation"),
        *(f"--out={tmp_path}", "--check", "--program"),
        script="compile.py",
    )
    assert (
        "has no budget of adaptation of tiny.py on h100x8" in done.stderr and done.returncode == 1
    )
    figures = json.loads((tmp_path / "compile.json").read_text())
    assert figures["dtype"] == "bfloat16" and figures["devices"] == 8
    assert figures["collectives"] and figures["frozen_gradients"] == []
    assert 0 < figures["memory"]["peak"] < 1 and figures["kernels"] > 100
    assert "ENTRY" in (tmp_path / "program.txt").read_text()
