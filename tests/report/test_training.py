# SPDX-License-Identifier: Apache-2.0
"""The picture shows what is in the log, and leaves matplotlib as it was."""

import math

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from edad_jax.report.training import PANELS, plot_training
from edad_jax.training.metrics import MetricsWriter


def write_log(workdir, names, count=20):
    with MetricsWriter(workdir) as writer:
        for step in range(count):
            writer.write(step, {name: (index + 1) / (step + 2) for index, name in enumerate(names)})


ALL = [curve.metric for panel in PANELS for curve in panel.curves]


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


def test_panels_say_what_they_show_and_curves_are_named_where_they_end(tmp_path, drawn):
    write_log(tmp_path, ALL)
    plot_training(tmp_path)
    by_title = {axes.get_title(loc="left"): axes for axes in shown_axes(drawn[0])}
    assert len(by_title) == len(PANELS)
    for panel in PANELS:
        axes = by_title[panel.title]
        assert panel.unit in axes.get_ylabel()
        names = [text.get_text().split("\n") for text in axes.texts]
        labels = [curve.label for curve in panel.curves]
        assert [name for name, *_ in names] == (labels if len(labels) > 1 else [])
    ends = [text.get_text() for text in by_title["Held-out text: masked words found"].texts]
    assert all("% → " in end for end in ends)
    assert [axes.get_xlabel() for axes in list(by_title.values())[-2:]] == [
        "step (updates completed)"
    ] * 2


@pytest.mark.parametrize("end", [0.0, 0.4, 0.9])
def test_labels_do_not_overlap_and_stay_in_their_panel(tmp_path, figures, end):
    [panel] = [each for each in PANELS if each.title.startswith("Held-out")]
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


def test_panels_without_metrics_are_left_out(tmp_path, drawn):
    write_log(tmp_path, ["student/mlm", "distill/hidden", "alpha"])
    plot_training(tmp_path)
    titles = [axes.get_title(loc="left") for axes in shown_axes(drawn[0])]
    assert len(titles) == 3 and not any("Teacher:" in title for title in titles)


def test_values_that_cannot_be_drawn_are_gaps(tmp_path, drawn):
    with MetricsWriter(tmp_path) as writer:
        for step, value in enumerate([3.0, math.nan, math.inf, 0.0, 2.0]):
            writer.write(step, {"student/mlm": value, "teacher/mlm": math.nan})
    plot_training(tmp_path)
    [axes] = shown_axes(drawn[0])
    assert np.array_equal(
        axes.lines[0].get_ydata(), [3.0, np.nan, np.nan, np.nan, 2.0], equal_nan=True
    )


def test_long_runs_show_a_running_mean_over_the_raw_line(tmp_path, drawn):
    with MetricsWriter(tmp_path) as writer:
        for step in range(400):
            writer.write(step, {"student/mlm": 5.0 + (-1) ** step})
    plot_training(tmp_path)
    raw, smooth = (line.get_ydata() for line in shown_axes(drawn[0])[0].lines)
    assert set(raw) == {4.0, 6.0}
    assert np.all(np.abs(smooth - 5.0) < 0.15)


def test_drawing_changes_no_global_state(tmp_path):
    before = dict(matplotlib.rcParams)
    write_log(tmp_path, ["student/mlm"])
    plot_training(tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_log_without_anything_to_draw_is_an_error_that_says_what_was_expected(tmp_path):
    write_log(tmp_path, ["tokens_per_second"])
    with pytest.raises(ValueError, match=r"metrics\.jsonl: got no metric.*teacher/mlm"):
        plot_training(tmp_path)
