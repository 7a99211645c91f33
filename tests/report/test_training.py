# SPDX-License-Identifier: Apache-2.0
"""The picture shows what is in the log, and leaves matplotlib as it was."""

import math

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from edad_jax.report import training
from edad_jax.report.tables import markdown_table
from edad_jax.report.training import plot_training
from edad_jax.training.metrics import MetricsWriter


def write_log(workdir, names, count=20):
    with MetricsWriter(workdir) as writer:
        for step in range(count):
            writer.write(step, {name: (index + 1) / (step + 2) for index, name in enumerate(names)})


ALL = [curve.metric for panel in training._PANELS for curve in panel.curves]


def shown_axes(figure):
    return [axes for axes in figure.axes if axes.lines]


def test_every_metric_is_drawn_with_its_values(tmp_path, figures):
    write_log(tmp_path, ALL)
    path = plot_training(tmp_path)
    assert path == tmp_path / "training.png"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "training.png"]
    height, width, _ = imread(path).shape
    assert width > 1000 and height > 800
    drawn = [line.get_ydata() for axes in shown_axes(figures[0]) for line in axes.lines]
    for index in range(len(ALL)):
        expected = [(index + 1) / (step + 2) for step in range(20)]
        assert any(len(d) == 20 and np.allclose(d, expected) for d in drawn), ALL[index]


def test_axes_are_labelled_and_curves_are_named_where_they_end(tmp_path, figures):
    write_log(tmp_path, ALL)
    plot_training(tmp_path)
    axes = shown_axes(figures[0])
    assert len(axes) == len(training._PANELS) == 8
    assert all(a.get_ylabel() and a.get_title(loc="left") for a in axes)
    assert [a.get_xlabel() for a in axes[-2:]] == ["step (updates completed)"] * 2
    texts = " ".join(text.get_text() for a in axes for text in a.texts)
    for name in ("next sentence", "attention scores", "soft targets", "values", "teacher"):
        assert name in texts
    assert "before" in texts and "after" in texts


@pytest.mark.parametrize("end", [0.0, 0.4, 0.9])
def test_labels_do_not_overlap_and_stay_in_their_panel(tmp_path, figures, end):
    [panel] = [each for each in training._PANELS if each.title.startswith("Held-out")]
    with MetricsWriter(tmp_path) as writer:
        for value in (0.9, end):  # three curves that end at one height
            writer.write(1, {curve.metric: value for curve in panel.curves})
    plot_training(tmp_path)
    [axes] = shown_axes(figures[0])
    renderer = figures[0].canvas.get_renderer()
    boxes = sorted(
        (text.get_window_extent(renderer) for text in axes.texts), key=lambda box: box.y0
    )
    assert len(boxes) == 3
    assert all(low.y1 <= high.y0 + 1 for low, high in zip(boxes, boxes[1:], strict=False))
    panel = axes.get_window_extent(renderer)
    assert panel.y0 - 15 <= boxes[0].y0 and boxes[-1].y1 <= panel.y1 + 5


def test_panels_without_metrics_are_left_out(tmp_path, figures):
    write_log(tmp_path, ["student/mlm", "distill/hidden", "alpha"])
    plot_training(tmp_path)
    titles = [axes.get_title(loc="left") for axes in shown_axes(figures[0])]
    assert len(titles) == 3 and not any("Teacher:" in title for title in titles)


def test_values_that_cannot_be_drawn_are_gaps(tmp_path, figures):
    with MetricsWriter(tmp_path) as writer:
        for step, value in enumerate([3.0, math.nan, math.inf, 0.0, 2.0]):
            writer.write(step, {"student/mlm": value, "teacher/mlm": math.nan})
    plot_training(tmp_path)
    [axes] = shown_axes(figures[0])
    assert np.array_equal(
        axes.lines[0].get_ydata(), [3.0, np.nan, np.nan, np.nan, 2.0], equal_nan=True
    )


def test_long_runs_show_a_running_mean_over_the_raw_line(tmp_path, figures):
    with MetricsWriter(tmp_path) as writer:
        for step in range(400):
            writer.write(step, {"student/mlm": 5.0 + (-1) ** step})
    plot_training(tmp_path)
    raw, smooth = (line.get_ydata() for line in shown_axes(figures[0])[0].lines)
    assert set(raw) == {4.0, 6.0}
    assert np.all(np.abs(smooth - 5.0) < 0.15)


def test_drawing_changes_no_global_state(tmp_path):
    before = dict(matplotlib.rcParams)
    write_log(tmp_path, ALL)
    plot_training(tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_log_without_anything_to_draw_is_an_error_that_says_what_was_expected(tmp_path):
    write_log(tmp_path, ["tokens_per_second"])
    with pytest.raises(ValueError, match=r"metrics\.jsonl: got no metric.*teacher/mlm"):
        plot_training(tmp_path)


def test_markdown_table_aligns_numbers_and_shows_what_is_missing():
    rows = [
        {"model": "a|b", "parameters": 15_000_000, "accuracy": 0.123456},
        {"model": "student", "parameters": 3},
    ]
    assert markdown_table(rows, ["model", "parameters", "accuracy"]).split("\n") == [
        "| model   | parameters | accuracy |",
        "| ------- | ---------: | -------: |",
        "| a\\|b    | 15,000,000 |   0.1235 |",
        "| student |          3 |        – |",
    ]
