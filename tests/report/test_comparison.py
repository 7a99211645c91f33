# SPDX-License-Identifier: Apache-2.0
"""Runs side by side: over the time that they trained, with a panel for each thing logged."""

import json
import subprocess
import sys

import numpy as np
import pytest

from edad_jax.report.comparison import plot_runs, runs_table
from tests.tiny_run import ROOT, environment


def write_run(workdir, lines, **config):
    workdir.mkdir(parents=True)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if config:
        (workdir / "config.json").write_text(json.dumps(config))
    return workdir


def pretraining(scale=1.0):
    """Lines as training writes them: held-out figures have lines of their own, without seconds."""
    lines = [{"step": 0, "time": 1000.0, "heldout/student_mlm_accuracy": 0.0}]
    for step in (10, 20):
        lines.append(
            {
                "step": step,
                "time": 2000.0 + 60 * step,
                "train/seconds": 6.0 * step * scale,
                "train/cpu_seconds": 12.0 * step * scale,
                "student/mlm": 8.0 - step / 10,
                "distill/hidden": 0.5,
                "alpha": 1 - step / 20,
            }
        )
    held_out = {"heldout/student_mlm_accuracy": 0.25, "heldout/teacher_mlm_accuracy": 0.5}
    return [*lines, {"step": 20, "time": 4000.0} | held_out]


TUNING = [
    {
        "step": 120 * epoch,
        "time": 1000.0 + 60 * epoch,
        "epoch": epoch,
        "validation/f1/seed-0": first,
        "validation/f1/seed-1": first + 0.25,
        "validation/f1/seed-2": 0.0,
        "loss/seed-0": 1 / epoch,
        "loss/seed-1": 2 / epoch,
        "loss/seed-2": "NaN" if epoch == 2 else 1.0,
    }
    for epoch, first in [(1, 0.125), (2, 0.5), (3, 0.25)]
]


def curves_of(figure):
    """{panel's title: [(minutes, values, line style, width)]}."""
    return {
        axes.get_title(loc="left").split(" (")[0]: [
            (*map(list, line.get_data()), line.get_linestyle(), line.get_linewidth())
            for line in axes.lines
        ]
        for axes in figure.axes
        if axes.lines
    }


def test_runs_are_drawn_over_the_minutes_that_they_trained(tmp_path, drawn):
    runs = [
        write_run(tmp_path / "fast", pretraining()),
        write_run(tmp_path / "slow", pretraining(scale=2.0)),
    ]
    path = plot_runs(tmp_path / "out" / "runs.png", runs)
    assert [each.name for each in path.parent.iterdir()] == ["runs.png"]
    curves = curves_of(drawn[0])
    assert [curve[:2] for curve in curves["Student: masked words"]] == [
        ([1, 2], [7, 6]),
        ([2, 4], [7, 6]),
    ]
    fast, fast_teacher, slow, slow_teacher = curves["Held-out text: masked words found"]
    assert fast[:3] == ([0, 2], [0, 0.25], "-") and slow[:3] == ([0, 4], [0, 0.25], "-")
    assert fast_teacher[:3] == ([2], [0.5], "--") and slow_teacher[0] == [4]
    assert set(curves) == {
        "Student: masked words",
        "Distillation: hidden states",
        "Held-out text: masked words found",
        "Weight of distillation in the student's loss",
    }
    [legend] = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["fast", "slow"]
    colours = {axes.lines[0].get_color() for axes in drawn[0].axes if axes.lines}
    assert len(colours) == 1  # a run has one in all panels


def test_fine_tuning_shows_each_seed_and_their_mean_since_the_first_line(tmp_path, drawn):
    plot_runs(tmp_path / "runs.png", [write_run(tmp_path / "ner", TUNING)])
    curves = curves_of(drawn[0])
    first, second, mean = curves["Fine-tuning: validation F1"]
    assert first[:2] == ([0, 1, 2], [0.125, 0.5, 0.25])
    assert second[1] == [0.375, 0.75, 0.5] and mean[1] == [0.25, 0.625, 0.375]
    assert mean[3] > 2 * max(first[3], second[3])


def test_a_seed_whose_loss_was_once_not_finite_is_in_no_curve_and_in_no_mean(tmp_path, drawn):
    run = write_run(tmp_path / "ner", TUNING)
    plot_runs(tmp_path / "runs.png", [run])
    curves = curves_of(drawn[0])
    first, second = [1, 1 / 2, 1 / 3], [2, 1, 2 / 3]
    assert [curve[1] for curve in curves["Fine-tuning: loss"]] == [
        first,
        second,
        pytest.approx([1.5, 0.75, 0.5]),
    ]
    assert len(curves["Fine-tuning: validation F1"]) == 3
    sound = [
        {name: value for name, value in line.items() if "seed-2" not in name} for line in TUNING
    ]
    table, other = runs_table([run]), runs_table([write_run(tmp_path / "sound" / "ner", sound)])
    assert "seeds failed" in table and "failed" not in other
    assert table.split("\n")[-1].split()[-4:] == other.split("\n")[-1].split()[-4:]


def test_the_score_of_another_task_has_a_panel_of_its_own(tmp_path, drawn):
    lines = [{"step": 9, "time": 1.0, "validation/accuracy/seed-7": 0.5}]
    run = write_run(tmp_path / "qa", lines, task="classification")
    plot_runs(tmp_path / "runs.png", [run])
    curves = curves_of(drawn[0])
    assert list(curves) == ["Fine-tuning: validation accuracy"]
    assert len(curves["Fine-tuning: validation accuracy"]) == 1  # a single seed is its own mean
    assert "validation accuracy, best" in runs_table([run]) and "F1" not in runs_table([run])


def test_many_points_become_means_of_neighbours(tmp_path, drawn):
    lines = [
        {"step": step, "time": 60.0 * step, "student/mlm": 5.0 + (-1) ** step}
        for step in range(600)
    ]
    plot_runs(tmp_path / "runs.png", [write_run(tmp_path / "long", lines)])
    [(minutes, values, _, _)] = curves_of(drawn[0])["Student: masked words"]
    assert len(minutes) == 60 and np.allclose(np.diff(minutes), 10) and np.allclose(values, 5)


def test_values_that_cannot_be_drawn_are_left_out(tmp_path, drawn):
    values = [3.0, "NaN", "Infinity", 0.0, 2.0]
    lines = [
        {"step": step, "time": 60.0 * step, "student/mlm": value}
        for step, value in enumerate(values)
    ]
    plot_runs(tmp_path / "runs.png", [write_run(tmp_path / "run", lines)])
    [(minutes, drawn, _, _)] = curves_of(drawn[0])["Student: masked words"]
    assert (minutes, drawn) == ([0, 4], [3, 2])


def test_table_has_a_line_per_run_and_a_dash_for_what_one_has_not(tmp_path):
    runs = [
        write_run(tmp_path / "edad", pretraining(), method="edad"),
        write_run(tmp_path / "ner", TUNING, task="tagging"),
    ]
    header, _, first, second = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in runs_table(runs).split("\n")
    )
    assert dict(zip(header, first, strict=True)) == {
        "run": "edad",
        "method": "edad",
        "steps": "20",
        "training (min)": "2",
        "CPU (min)": "4",
        "student held-out": "0.25",
        "teacher held-out": "0.5",
        "seeds failed": "–",
        "validation F1, last": "–",
        "validation F1, best": "–",
    }
    assert dict(zip(header, second, strict=True)) == {
        "run": "ner",
        "method": "tagging",
        "steps": "360",
        "training (min)": "–",
        "CPU (min)": "–",
        "student held-out": "–",
        "teacher held-out": "–",
        "seeds failed": "1",
        "validation F1, last": "0.375",
        "validation F1, best": "0.625",
    }


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    runs = [write_run(tmp_path / name / "run", pretraining()) for name in "ab"]
    table = runs_table(runs)
    assert str(runs[0]) in table and str(runs[1]) in table
    with pytest.raises(ValueError, match="got a workdir twice"):
        runs_table([runs[0], runs[0]])


def test_runs_without_anything_to_draw_are_an_error(tmp_path):
    run = write_run(tmp_path / "run", [{"step": 1, "time": 1.0, "tokens_per_second": 9.0}])
    with pytest.raises(ValueError, match="run: got no metric to draw, expected one of teacher/mlm"):
        plot_runs(tmp_path / "runs.png", [run])
    with pytest.raises(ValueError, match="got no workdir"):
        plot_runs(tmp_path / "runs.png", [])


def test_damaged_configuration_is_named_with_its_line(tmp_path):
    run = write_run(tmp_path / "run", pretraining())
    (run / "config.json").write_text('{\n"method":')
    with pytest.raises(ValueError, match=r"config\.json:2: got damaged JSON"):
        runs_table([run])


def run_report(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "report.py"), *map(str, arguments)],
        env=environment(),
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=120,
    )


def test_command_draws_the_runs_and_prints_and_writes_the_table(tmp_path):
    run = write_run(tmp_path / "edad", pretraining(), method="edad")
    done = run_report(run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = runs_table([run])
    assert table in done.stdout
    assert (tmp_path / "runs" / "report.md").read_text() == table + "\n"
    assert (tmp_path / "runs" / "report.png").read_bytes().startswith(b"\x89PNG")
    done = run_report(run, "--out", tmp_path / "other.svg")
    assert done.returncode == 0 and (tmp_path / "other.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.png"], "ValueError: got no workdir, expected the folders of one or more"),
        (["/no/such/run", "--out", "a.png"], "FileNotFoundError: "),
    ],
)
def test_command_ends_mistakes_with_a_word(arguments, message):
    done = run_report(*arguments)
    assert done.returncode == 1 and message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_help_teaches_the_command():
    done = run_report("--help")
    for word in ("python launch/report.py runs/edad", "--out", "metrics.jsonl", "launch/train.py"):
        assert word in done.stdout
