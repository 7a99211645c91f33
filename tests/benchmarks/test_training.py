# SPDX-License-Identifier: Apache-2.0
"""The benchmark of training: what is measured, in which order, and what is made of it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import input_pipeline, operations, step, training
from benchmarks.job import measure, run_job
from benchmarks.report import markdown_report
from benchmarks.training import Plan, config_overrides
from edad_jax.data.batches import Rows
from edad_jax.distillation.phases import WHOLE, Phase
from tests.tiny_run import run_command, tiny_config, write_config_file

METHODS = ("edad", "adaptation", "distillation")
SECONDS = {"edad": 2.0, "adaptation": 1.5, "distillation": 1.0}
CASE = {"teacher": [1, 240, 3, 960], "words": 300, "devices": 2}


def case(method, **more):
    config = tiny_config(Path("unused"), parallel__engine="pmap").to_dict()
    return CASE | {"config": config, "method": method, "started": 0.0} | more


@pytest.fixture(scope="module")
def steps():
    measured = {"kind": "step", "repeats": 2, "peak_tflops": 2.0}
    return {method: measure(case(method, **measured)) for method in METHODS}


def test_one_pass_is_counted_against_the_sum_of_two_stages(steps):
    flops = {method: row["xla_gflop"] for method, row in steps.items()}
    expected = (flops["adaptation"] + flops["distillation"]) / flops["edad"]
    ratio = step.two_stages_over_one_pass(steps)
    assert ratio["xla_gflop"] == expected
    # The second stage runs the teacher once more; a teacher wide enough that this outweighs the
    # MLM head, which only one of the two stages has for the student.
    assert expected > 1 and ratio["model_gflop"] > 1
    assert flops["edad"] > max(flops["adaptation"], flops["distillation"])
    assert step.two_stages_over_one_pass({"edad": steps["edad"]}) is None


def test_a_step_is_told_by_time_flops_and_memory(steps):
    for row in steps.values():
        assert row["devices"] == 2 and row["devices_there"] == 4 and row["batch"] == [8, 32]
        low, high = sorted(row["seconds_all"])
        assert low <= row["seconds_p10"] < row["seconds"] < row["seconds_p90"] <= high
        assert row["tokens_per_second"] == 8 * 32 / row["seconds"]
        counted = row["xla_gflop"] * 2  # XLA counts one device's program
        assert 0.75 * counted < row["model_gflop"] < counted
        assert row["mfu"] == row["tflops"] / (2.0 * 2)
        assert row["peak_of"] == "process" and 0.05 < row["peak_gb"] < 20
        assert 0 < row["program_gb"] < row["peak_gb"]
        assert 0 < row["compile_seconds"] < row["first_step_seconds"]


def test_an_update_that_leaves_out_the_teacher_is_smaller(steps):
    phase = Phase(teacher_learns=False, imitates=False)
    row = measure(case("edad", kind="step", repeats=1, peak_tflops=None, phase=list(phase)))
    for count in ("xla_gflop", "model_gflop", "program_gb"):
        assert row[count] < 0.8 * steps["edad"][count]


def test_a_save_costs_what_it_holds_up_and_slows_down():
    row = measure(case("edad", kind="checkpoint", repeats=2))
    assert 0 < row["state_gb"] < 2e-3
    assert len(row["saves"]) == 3 and row["background_seconds"] > 0 < row["hold_up_seconds"]
    held = sum(save["hold_up_seconds"] for save in row["saves"][1:]) / 2
    assert row["hold_up_seconds"] == pytest.approx(held)
    lost = row["hold_up_seconds"] + max(0.0, row["slower_seconds"])
    assert row["share_of_a_minute"] == pytest.approx(lost / 60)


def test_the_time_of_an_update_is_told_by_net_and_part():
    profile = measure(case("edad", kind="profile", repeats=2))
    assert sum(row["share"] for row in profile["rows"]) == pytest.approx(1)
    assert (
        0
        < sum(row["seconds"] for row in profile["rows"])
        == pytest.approx(profile["operation_seconds"])
    )
    found = {(row["part"], row["net"], row["direction"]) for row in profile["rows"]}
    for net in ("teacher", "student"):
        for direction in ("forward", "backward"):
            for part in ("MLM head and loss", "attention", "feed-forward"):
                assert (part, net, direction) in found
    assert {("optimiser", "", ""), ("imitation", "", "backward")} <= found
    named = sum(row["share"] for row in profile["rows"] if row["part"] != "other")
    assert named > 0.6  # so small a program has much that belongs to nobody


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("f/jvp(teacher)/ExBert/b/layers_3/attention/query/dot", ("linear layers of attention",)),
        ("f/jvp(teacher)/ExBert/b/layers_3/attention/reduce_max", ("attention",)),
        ("f/jvp(teacher)/ExBert/b/layers_11/output/dot_general", ("feed-forward",)),
        ("f/jvp(teacher)/ExBert/b/layers_11/output_norm/rsqrt", ("norms",)),
        ("f/jvp(teacher)/ExBert/b/layers_3/attention/transpose", ("attention",)),
        ("f/jvp(teacher)/mlm_loss/reduce_max", ("MLM head and loss",)),
        ("f/teacher/ExBert/b/layers_1/erfc", ("GELU, residuals, gate",)),
        ("f/jvp(teacher)/ExBert/mlm/norm/rsqrt", ("MLM head and loss",)),
        ("f/jvp(teacher)/ExBert/pooler/tanh", ("NSP head and loss",)),
        ("f/teacher/ExBert/gather", ("embeddings and the rest",)),
        ("f/transpose(jvp(student))/ExBert/mlm/dot", ("MLM head and loss", "student", "backward")),
        ("f/transpose(jvp(imitation))/sub", ("imitation", "", "backward")),
        ("f/optimizer/add", ("optimiser", "", "")),
        ("", ("other", "", "")),
    ],
)
def test_an_operation_belongs_where_its_scopes_say(scope, expected):
    part, *where = expected
    assert operations.place(scope) == (part, *(where or ("teacher", "forward")))


def test_random_rows_are_in_the_form_of_a_real_run(tmp_path, monkeypatch):
    monkeypatch.setattr(input_pipeline, "SHARD_ROWS", 30)
    written = input_pipeline.write_random_rows(tmp_path, 70, 16, 500)
    rows = Rows(tmp_path)
    assert len(rows) == 70 and rows.max_length == 16
    assert written == sum(path.stat().st_size for path in tmp_path.glob("*.npy"))
    found = rows[np.arange(70)]
    assert found["ids"].dtype == np.uint16 and 400 < found["ids"].max() < 500
    assert found["length"].min() >= 4 and found["length"].max() <= 16


def test_the_command_measures_in_a_process_of_its_own_and_leaves_files(tmp_path):
    config = str(write_config_file(tmp_path / "tiny.py", tmp_path))
    out = tmp_path / "out"
    done = run_command(
        "--config",
        config,
        "--parts=input",
        "--rows=500",
        "--seconds=0.01",
        "--out",
        str(out),
        "--config.batch_size=4",
        script="benchmark.py",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "input: batches from rows on disk ..." in done.stderr
    assert "500 rows on disk" in done.stdout and "example 100,000,000" in done.stdout
    saved = json.loads((out / "benchmark.json").read_text())
    assert saved["batch"] == [4, 32] and saved["machine"]["cores"] >= 1
    assert saved["input"]["resumed_at"] == 10**8 and 0 < saved["input"]["resumed_seconds"] < 10


def test_a_process_that_fails_says_why():
    config = tiny_config(Path("unused"), parallel__engine="speed").to_dict()
    job = case("edad", repeats=1, peak_tflops=None, config=config)
    with pytest.raises(ValueError, match="(?s)step: measuring it failed.*'speed' is not one of"):
        run_job("step", job, {})


@pytest.fixture
def jobs(monkeypatch):
    """Returns the jobs that were asked for; instead of measuring, numbers are made up."""
    asked = []

    def run_job(kind, job, environment):
        asked.append((kind, job, environment))
        if kind == "input":
            return {
                "rows": 9,
                "megabytes": 1.0,
                "seconds": 0.01,
                "seconds_p90": 0.02,
                "batches_per_second": 100.0,
                "resumed_at": 10**8,
                "resumed_seconds": 0.25,
            }
        if kind == "checkpoint":
            return {
                "state_gb": 1.0,
                "step_seconds": 2.0,
                "hold_up_seconds": 0.3,
                "background_seconds": 4.0,
                "slower_seconds": 0.3,
                "share_of_a_minute": 0.01,
            }
        if kind == "profile":
            head = {"device": "made up", "devices": 1, "dtype": "float32", "batch": [8, 32]}
            row = {"part": "attention", "net": "teacher", "seconds": 0.5, "share": 0.25}
            other = {"part": "optimiser", "net": "", "direction": "", "seconds": 1, "share": 0.5}
            return head | {
                "seconds": 2.1,
                "operation_seconds": 2.0,
                "rows": [other, row | {"direction": "forward"}, row | {"direction": "backward"}],
            }
        is_virtual = "device_count=4" in environment.get("XLA_FLAGS", "")
        devices, rows = job["devices"] or 1, job["config"]["batch_size"]
        # Two devices take 5/8 of the time of one, four take 4/8.
        seconds = SECONDS[job["method"]] * rows / 8 * {1: 1.0, 2: 0.625, 4: 0.5}[devices]
        seconds *= 1.0 if job["phase"] == list(WHOLE) else 0.25
        return {
            "seconds": seconds,
            "seconds_p10": 0.9 * seconds,
            "seconds_p90": 1.1 * seconds,
            "seconds_all": [seconds] * 3,
            "tokens_per_second": rows * 32 / seconds,
            "model_gflop": 1_000.0,
            "tflops": 0.5,
            "mfu": None,
            "xla_gflop": 2_000.0,
            "program_gb": 1.0,
            "peak_gb": 2.0,
            "peak_of": "device",
            "trace_seconds": 1.0,
            "compile_seconds": 30.0,
            "first_step_seconds": 40.0,
            "device": "made up",
            "devices": devices,
            "devices_there": 4 if is_virtual else 1,
            "dtype": "float32",
            "batch": [rows, 32],
        }

    monkeypatch.setattr(training, "run_job", run_job)
    return asked


def plan(**changes):
    base = Plan(
        config=tiny_config(Path("unused")),
        teacher=(2, 24, 3, 48),
        parts=training.PARTS,
        repeats=3,
        peak_tflops=None,
        virtual_devices=4,
        rows=9,
        seconds=1.0,
        torch_command=(),
    )
    return base._replace(**changes)


def peer(code):
    """Returns a command that stands for the torch peer; it is given --out FILE."""
    return [sys.executable, "-c", "import json, sys; " + code]


PEER = (
    "row = {'seconds': 4.0, 'seconds_all': [4.0], 'tokens_per_second': 64.0, 'peak_gb': None}; "
    "steps = {mode: {'edad': row} for mode in ('tuned', 'plain')}; "
    "json.dump({'torch': '2.0', 'device': 'cpu', 'threads': 2, 'batch': [8, 32], "
    "'steps': steps}, open(sys.argv[sys.argv.index('--out') + 1], 'w'))"
)


def test_every_part_is_measured_once_and_reported(jobs, tmp_path, monkeypatch, figures):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: True)
    result = training.benchmark(plan(torch_command=peer(PEER)), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text()) == result
    assert result["two_stages_over_one_pass"]["seconds"] == (1.5 + 1.0) / 2.0
    assert result["input"]["share_of_step"] == 0.01 / 2.0
    # One device: 8 rows of 32 in 2 s. The peer: 64 tokens/s.
    assert result["ours_over_torch"] == {"tuned": {"edad": 2.0}, "plain": {"edad": 2.0}}
    scaling = [(row["devices"], row["batch"][0], row["efficiency"]) for row in result["scaling"]]
    assert scaling == [(1, 8, 1.0), (2, 8, 0.8), (2, 16, 0.8), (4, 8, 0.5), (4, 32, 0.5)]
    methods = [job["method"] for kind, job, _ in jobs if kind == "step"]
    assert methods == [*METHODS] + ["edad"] * 8  # steps; then phases, warm, devices
    shares = [(row["phase"], row["share_of_whole"]) for row in result["phases"]]
    assert shares == [(WHOLE.describe(), 1.0)] + [
        (phase.describe(), 0.25) for phase in training.PHASES
    ]
    # All start from one folder of programs, which is empty before the first and gone at the end.
    folders = {
        environment.get("JAX_COMPILATION_CACHE_DIR")
        for kind, _, environment in jobs
        if kind != "input"
    }
    assert len(folders) == 1 and not Path(folders.pop()).exists()
    text = (tmp_path / "out" / "benchmark.md").read_text()
    for words in (
        "1 x made up, float32, batch 8 x 32 pieces",
        "| edad         | 2.000      | 1.800-2.200",
        "Two stages over one pass: 1.25 in time",
        "ours / torch",
        "0.50% of the EDAD step's time",
        "Peak memory is that of a device.",
        "Every 60 s that is 1.0% of the time",
        "torch 2.0, cpu, batch 8 x 32 pieces, 2 threads",
        "first update done (s)",
        "4 virtual ones share this machine's cores",
        "| the teacher does not run, the student does not imitate it",
        "Where the time goes",
        "(an update then takes 2.100 s)",
    ):
        assert words in text
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["attention", "25.0%", "25.0%", "–", "–", "–", "50.0%"] in lines
    assert ["all", "25.0%", "25.0%", "–", "–", "50.0%", "100.0%"] in lines
    titles = [axes.get_title(loc="left") for axes in figures[-1].axes]
    assert titles == ["Tokens a second", "One pass against two stages: 1.25 in time", "Devices"]
    assert "torch, plain: 64" in [text.get_text() for text in figures[-1].axes[0].texts]


def test_a_backend_that_counts_no_flops_has_its_other_figures(jobs, tmp_path):
    result = training.benchmark(plan(parts=["steps"]), tmp_path / "out")
    silent = {method: row | {"xla_gflop": None} for method, row in result["steps"].items()}
    result |= {"steps": silent, "two_stages_over_one_pass": step.two_stages_over_one_pass(silent)}
    text = markdown_report(result)
    assert "Two stages over one pass: 1.25 in time, 2.00 in model FLOPs (" in text
    assert "in XLA's" not in text


def test_without_torch_the_rest_stands_and_one_line_says_so(jobs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    result = training.benchmark(plan(parts=["steps"], torch_command=["torch"]), tmp_path)
    assert result["steps"] and "torch" not in result
    assert "torch is left out: torch is not installed" in (tmp_path / "benchmark.md").read_text()
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "torch" in line] == [
        "torch is left out: torch is not installed (it is in the dev extra)"
    ]


def test_a_peer_that_fails_is_a_note(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: True)
    failing = plan(parts=["steps"], torch_command=peer("sys.exit('no memory left')"))
    assert training.benchmark(failing, tmp_path)["notes"] == [
        "torch is left out: its command failed: no memory left"
    ]


def test_parts_are_chosen_and_a_batch_that_does_not_split_is_told(jobs, tmp_path):
    config = tiny_config(Path("unused"), batch_size=6)
    result = training.benchmark(plan(parts=["devices"], config=config), tmp_path)
    assert [(row["devices"], row["batch"][0]) for row in result["scaling"]] == [
        (1, 6),
        (2, 6),
        (2, 12),
        (4, 24),
    ]
    assert "a batch of 6 does not split over 4 devices" in result["notes"][0]
    assert {kind for kind, *_ in jobs} == {"step"} and "steps" not in result
    with pytest.raises(ValueError, match="got parts speed, expected some of steps, profile"):
        training.benchmark(plan(parts=["speed"]), tmp_path)
    auto = plan(config=tiny_config(Path("unused"), batch_size_per_device="auto"))
    with pytest.raises(ValueError, match="batch_size_per_device='auto', expected the whole batch"):
        training.benchmark(auto, tmp_path)
    saving = plan(config=tiny_config(Path("unused"), phases__stop_teacher_below=0.5))
    with pytest.raises(ValueError, match="expected all of it off: .* measured by --parts=phases"):
        training.benchmark(saving, tmp_path)
    triple = plan(config=tiny_config(Path("unused"), method="triple"))
    with pytest.raises(ValueError, match="method='triple', expected one of edad, adaptation"):
        training.benchmark(triple, tmp_path)


def fail(monkeypatch, is_failing, message):
    """Lets the processes fail whose job is_failing says; what they say is `message`."""
    run_job = training.run_job

    def maybe(kind, job, environment):
        if is_failing(job):
            raise ValueError(f"step: measuring it failed{message}")
        return run_job(kind, job, environment)

    monkeypatch.setattr(training, "run_job", maybe)


def test_more_rows_than_the_memory_holds_are_a_note(jobs, tmp_path, monkeypatch):
    ended = " (signal 9 ended it: was memory short?)"
    fail(monkeypatch, lambda job: job["config"]["batch_size"] == 32, ended)
    result = training.benchmark(plan(parts=["devices"]), tmp_path)
    assert [row["batch"][0] for row in result["scaling"]] == [8, 8, 16, 8]
    assert (
        result["notes"][0] == f"devices: 4, 32 rows are left out; step: measuring it failed{ended}"
    )


def test_a_step_that_fails_costs_neither_earlier_steps_nor_later_parts(jobs, tmp_path, monkeypatch):
    fail(monkeypatch, lambda job: job["method"] == "distillation", ":\nout of memory")
    with pytest.raises(ValueError, match="(?s)out of memory.*could be measured is in"):
        training.benchmark(plan(parts=["steps", "compile", "checkpoint"]), tmp_path)
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(result["steps"]) == {"edad", "adaptation"}
    assert result["compile"]["warm"] and result["checkpoint"]["state_gb"] == 1.0
    assert result["notes"] == ["steps: not all of it could be measured; out of memory"]
    assert "| adaptation | 1.500" in (tmp_path / "benchmark.md").read_text()


def test_compiling_is_measured_cold_after_a_part_that_has_compiled_the_same(jobs, tmp_path):
    training.benchmark(plan(parts=["phases", "compile"]), tmp_path)
    *phases, cold, warm = (environment["JAX_COMPILATION_CACHE_DIR"] for _, _, environment in jobs)
    assert cold == warm and cold not in phases


def test_with_one_device_the_step_is_not_measured_again(jobs, tmp_path):
    result = training.benchmark(plan(parts=["steps", "devices"], virtual_devices=0), tmp_path)
    assert len(jobs) == 3 and [row["devices"] for row in result["scaling"]] == [1]
    assert result["notes"] == [
        "devices: there is one; on a CPU, --virtual_devices=4 makes four out of its cores"
    ]


def test_what_changes_the_configuration_is_handed_on():
    words = "--config a.py --config.batch_size=4 --out x --config.seed 3 --noconfig.progress -y"
    assert config_overrides(words.split()) == [
        "--config.batch_size=4",
        "--config.seed",
        "3",
        "--noconfig.progress",
    ]
