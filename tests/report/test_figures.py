# SPDX-License-Identifier: Apache-2.0
"""Pictures of scores show the numbers that they are given, and leave matplotlib as it was."""

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from edad_jax.report.figures import plot_bars, plot_confusion, plot_costs, plot_seeds


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def test_confusion_shows_counts_and_shares_of_gold_rows(tmp_path, figures):
    path = tmp_path / "new" / "confusion.png"
    assert plot_confusion(path, [[3, 1], [0, 0]], ["yes", "no"], "PubMedQA") == path
    assert [each.name for each in path.parent.iterdir()] == ["confusion.png"]
    assert imread(path).shape[1] > 300
    [axes] = figures[0].axes
    assert texts_of(axes) == ["3\n75.0%", "1\n25.0%", "0", "0"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["yes (4)", "no (0)"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["yes", "no"]
    assert axes.get_title(loc="left") == "PubMedQA"


@pytest.mark.parametrize("confusion", [[[1]], [[1, 2]], [[1, 2, 3], [4, 5, 6]]])
def test_confusion_of_another_size_than_its_labels_is_an_error(tmp_path, confusion):
    with pytest.raises(ValueError, match=r"got the shape .* expected \(2, 2\) for 2 labels"):
        plot_confusion(tmp_path / "a.png", confusion, ["a", "b"])


def test_each_seed_has_a_thin_curve_and_their_mean_a_thick_one(tmp_path, drawn):
    scores = {"validation F1": [[0.2, 0.6], [0.4, 0.7]], "test F1": [[0.1, 0.5]]}
    plot_seeds(tmp_path / "seeds.png", [1, 2], scores, "F1")
    [axes] = drawn[0].axes
    curves = [(list(line.get_ydata()), line.get_linewidth()) for line in axes.lines]
    assert [values for values, _ in curves] == [
        [0.2, 0.6],
        [0.4, 0.7],
        pytest.approx([0.3, 0.65]),
        [0.1, 0.5],
        [0.1, 0.5],
    ]
    assert min(curves[2][1], curves[4][1]) > 2 * max(curves[index][1] for index in (0, 1, 3))
    [legend] = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "validation F1: 0.650 after the last epoch, mean of 2 seeds",
        "test F1: 0.500 after the last epoch, mean of 1 seed",
    ]


def test_seed_without_a_score_for_each_epoch_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"validation: got \[2, 1\] scores of 2 seeds, expected 2"):
        plot_seeds(tmp_path / "seeds.png", [1, 2], {"validation": [[0.1, 0.2], [0.3]]}, "F1")
    with pytest.raises(ValueError, match="got no scores"):
        plot_seeds(tmp_path / "seeds.png", [1, 2], {}, "F1")


def test_names_of_close_points_do_not_overlap(tmp_path, figures):
    rows = [
        {"name": f"method number {index}", "cost": 100 + 3 * index, "score": 0.6, "half": half}
        for index, half in enumerate([0.01, None, 0.02, 0.01])
    ]
    rows.append({"name": "far away", "cost": 400, "score": 0.7, "half": None})
    plot_costs(tmp_path / "costs.png", rows, "Cost", cost_label="CPU minutes")
    [axes] = figures[0].axes
    assert axes.get_xlabel() == "CPU minutes"
    assert texts_of(axes) == [row["name"] for row in rows]
    renderer = figures[0].canvas.get_renderer()
    boxes = [text.get_tightbbox(renderer) for text in axes.texts]
    panel = axes.get_window_extent(renderer)
    for index, box in enumerate(boxes):
        assert panel.x0 <= box.x0 and box.x1 <= panel.x1
        assert not box.padded(-1).count_overlaps(boxes[index + 1 :])


def test_error_bars_are_half_the_interval_to_either_side(tmp_path, drawn):
    rows = [{"name": "a", "score": 0.5, "half": 0.125}, {"name": "b", "score": 0.25, "half": None}]
    plot_bars(tmp_path / "bars.png", rows, "Schedules", "entity F1")
    plot_costs(tmp_path / "costs.png", [row | {"cost": 7} for row in rows], "Costs")
    bars, costs = (figure.axes[0] for figure in drawn)
    assert [np.ptp(c.get_segments()[0], axis=0).tolist() for c in bars.collections] == [[0.25, 0]]
    assert [np.ptp(c.get_segments()[0], axis=0).tolist() for c in costs.collections] == [[0, 0.25]]


def test_bars_stand_in_the_order_given_with_their_numbers(tmp_path, drawn):
    rows = [
        {"name": "first", "score": 0.25, "half": 0.01},
        {"name": "second", "score": 0.5, "half": None},
    ]
    plot_bars(tmp_path / "bars.png", rows, "Schedules", "entity F1")
    [axes] = drawn[0].axes
    bottom, top = axes.get_ylim()
    assert bottom > top  # place 0 is on top
    assert [text.get_text() for text in axes.get_yticklabels()] == ["first", "second"]
    assert texts_of(axes) == ["0.250 ± 0.010", "0.500"]
    assert axes.get_xlabel() == "entity F1"
    percent = [{"name": "a", "score": 71.234, "half": 0.806}]
    plot_bars(tmp_path / "bars.png", percent, "Schedules", "entity F1 (%)")
    assert texts_of(drawn[1].axes[0]) == ["71.23 ± 0.81"]


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'Costs': got no rows"):
        plot_costs(tmp_path / "a.png", [], "Costs")
    with pytest.raises(ValueError, match="'Bars': got no rows"):
        plot_bars(tmp_path / "a.png", [], "Bars", "F1")


def test_path_without_a_picture_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got the ending '.md', expected .png, .svg or .pdf"):
        plot_confusion(tmp_path / "a.md", [[1]], ["a"])
    assert not list(tmp_path.iterdir())


def test_drawing_changes_no_global_state(tmp_path):
    before = dict(matplotlib.rcParams)
    plot_seeds(tmp_path / "seeds.svg", [1, 2], {"F1": [[0.1, 0.2]]}, "F1")
    assert dict(matplotlib.rcParams) == before
