# SPDX-License-Identifier: Apache-2.0
"""The view tells what is done, how far the running stage is, and what is left."""

import io

import pytest

from chain.view import View, last_bar, show_time, work_of


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("edad:  34%|###   | 41/120 [01:20<02:40,  1.9s/step]", (0.34, 160.0)),
        ("a:   5%|# | 1/9 [00:01<?, ?it/s]", (0.05, None)),
        ("a:  10%|#| 1/9 [0:01<1:00:02]\r\x1b[Aa:  90%|#| 8/9 [59:01<00:03, 1]", (0.9, 3.0)),
        ("vocabulary: 448B [00:00, 3.10kB/s]", None),
        ("", None),
    ],
)
def test_the_newest_bar_of_a_log_is_read(tmp_path, text, expected):
    (tmp_path / "log").write_text(text)
    assert last_bar(tmp_path / "log") == expected
    assert last_bar(tmp_path / "none") is None


def test_what_is_left_is_the_running_stages_word_and_the_others_share_of_the_work():
    view = View(["a", "b", "c"], [1.0, 2.0, 4.0], io.StringIO())
    assert view.seconds_left(0, 5.0, None) is None  # nothing has told its speed
    assert view.seconds_left(0, 5.0, (0.5, 5.0)) == 5 + 10 * (2 + 4)
    view.end(0, 10.0)
    assert view.seconds_left(1, 5.0, None) == 20 - 5 + 40
    assert view.seconds_left(1, 30.0, None) == 15 * 4  # it should have ended after 20
    assert view.seconds_left(1, 30.0, (0.5, 30.0)) == 30 + 30 * 4


def test_a_terminal_has_a_line_for_each_stage_which_stays_in_its_place():
    out = Terminal()
    view = View(["rows", "training"], [1.0, 1.0], out)
    view.skip(0, 61.0)
    view.begin(1)
    view.update(1, 5.0, (0.25, 15.0))
    drawn = out.getvalue().split("\x1b[3A")[-1]
    assert "[1/2] rows      done before (1:01)" in drawn
    assert "[2/2] training  25%, 0:05, 0:15 left" in drawn
    assert "time left: about 0:15" in drawn


def test_lines_are_no_longer_than_a_narrow_terminal_has_room_for(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    out = Terminal()
    view = View(["fine-tuning of the adapted teacher"], [1.0], out)
    view.begin(0)
    view.update(0, 5.0, (0.25, 15.0))
    lines = out.getvalue().split("\x1b[2A")[-1].split("\n")
    shown = [line.removeprefix("\r\x1b[K") for line in lines]
    assert shown == ["[1/1] fine-tuning of the adap", "time left: about 0:15", ""]


def test_a_stage_whose_work_nobody_knows_counts_as_the_least():
    assert work_of(["a", "b"], {"a": 3.0, "c": 2.0}) == [3.0, 2.0]
    assert show_time(3_723) == "1:02:03"
