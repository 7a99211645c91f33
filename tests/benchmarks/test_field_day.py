# SPDX-License-Identifier: Apache-2.0
"""The driver of the field day: a part that goes wrong costs only itself."""

import json
import subprocess
import sys
import time

import pytest

from benchmarks.field_day import PARTS, main
from benchmarks.field_runner import Part, run_day
from tests.tiny_run import ROOT

# A part as the real ones are: it writes its figures when it has them.
WRITES = """
import json, pathlib, sys
given = dict(word[2:].split("=", 1) for word in sys.argv[1:] if "=" in word)
out = pathlib.Path(given["out"])
out.write_text(json.dumps({"figure": 1}))
"""
WAITS = WRITES + "import time; time.sleep(60)"


def script(text):
    return ("-c", text)


def part(name, text=WRITES, seconds=20.0, **fields):
    return Part(name, f"the part {name}", seconds, script(text), **fields)


def run(folder, *parts, seconds=60.0, **settings):
    day = run_day(
        parts, out=folder, work=folder / "work", pack=folder / "pack", seconds=seconds, **settings
    )
    assert json.loads((folder / "day.json").read_text()) == day
    return day


def test_a_part_that_fails_costs_only_itself_and_says_why(tmp_path):
    bad = part("bad", WRITES + "sys.exit('no such device')")
    day = run(tmp_path, bad, part("good"))
    assert list(day["parts"]) == ["bad", "good"]
    assert day["parts"]["bad"]["status"] == "failed"
    assert "status 1; day.log ends: no such device" in day["parts"]["bad"]["reason"]
    assert day["parts"]["bad"]["figures"] == {"figure": 1}
    assert day["parts"]["good"]["status"] == "done"
    assert "no such device" in (tmp_path / "day.log").read_text()


def test_a_part_out_of_time_is_stopped_with_all_it_started_and_keeps_its_figures(
    tmp_path,
):
    child = "import subprocess; subprocess.run([sys.executable, '-c', {!r}])"
    marks = tmp_path / "still-here"
    lives_on = f"import pathlib, time; time.sleep(6); pathlib.Path({str(marks)!r}).touch()"
    slow = part("slow", WRITES + child.format(lives_on), seconds=3.0)
    start = time.monotonic()
    day = run(tmp_path, slow, part("next"))
    assert day["parts"]["slow"]["status"] == "out of time"
    assert "what it had by then is kept" in day["parts"]["slow"]["reason"]
    assert day["parts"]["slow"]["figures"] == {"figure": 1}
    assert day["parts"]["next"]["status"] == "done"
    time.sleep(max(0.0, start + 8 - time.monotonic()))
    assert not marks.exists()


def test_figures_are_on_disk_while_the_part_still_runs(tmp_path):
    looks = f"""
import json, pathlib, time
path = pathlib.Path({str(tmp_path / "day.json")!r})
while not json.loads(path.read_text())["parts"]["looks"]["figures"]:
    time.sleep(0.05)
"""
    day = run(tmp_path, part("looks", WRITES + looks))
    assert day["parts"]["looks"]["status"] == "done"


def test_later_parts_have_the_time_that_they_need_at_least(tmp_path):
    greedy = part("greedy", WAITS, seconds=60.0)
    day = run(tmp_path, greedy, part("last", least=12.0), seconds=15.0)
    assert day["parts"]["greedy"]["limit"] == pytest.approx(3.0, abs=0.5)
    assert day["parts"]["last"]["status"] == "done"


def test_a_part_without_time_or_without_its_pack_is_left_out_and_says_so(tmp_path):
    day = run(tmp_path, part("lacks", needs=("rows",)), part("good"))
    assert day["parts"]["lacks"]["status"] == "left out"
    assert "got no rows in" in day["parts"]["lacks"]["reason"]
    assert day["parts"]["good"]["status"] == "done"
    day = run(tmp_path, part("late"), seconds=0.5)
    assert "no time" in day["parts"]["late"]["reason"]


def test_a_part_prepared_beside_another_starts_with_it_and_goes_on_after_it(tmp_path):
    went = tmp_path / "went"
    beside = f"""
from benchmarks.field_part import wait_for_go
begun = pathlib.Path({str(tmp_path / "begun")!r}); begun.touch()
wait_for_go(out)
out.write_text(json.dumps({{"first ended": pathlib.Path({str(went)!r}).exists()}}))
"""
    first = f"""
import time
while not pathlib.Path({str(tmp_path / "begun")!r}).exists():
    time.sleep(0.05)
time.sleep(1)
pathlib.Path({str(went)!r}).touch()
"""
    day = run(
        tmp_path,
        part("first", WRITES + first),
        part("beside", WRITES + beside, is_prepared_beside=True),
    )
    assert day["parts"]["first"]["status"] == "done"
    assert day["parts"]["beside"]["figures"] == {"first ended": True}


def test_parts_that_do_not_run_again_stay_in_the_day(tmp_path):
    run(tmp_path, part("one"), part("two", "raise SystemExit(1)"))
    day = run(tmp_path, part("two"), keeps_others=True)
    assert {name: entry["status"] for name, entry in day["parts"].items()} == {
        "one": "done",
        "two": "done",
    }


def test_the_day_fits_a_command_of_ten_minutes_and_starts_with_the_core_tests():
    assert PARTS[0].name == "core"
    assert 540 <= sum(each.seconds for each in PARTS) <= 640  # --seconds bounds them all
    assert sum(each.least for each in PARTS) < 100


def test_an_unknown_part_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["--only=stepz"])
    assert "got stepz, expected out of core, steps" in capsys.readouterr().err


def test_the_rehearsal_packs_travels_arrives_and_times_an_encoder(tmp_path):
    done = subprocess.run(
        ["benchmarks/field_day.sh", "--rehearse", "--only=speed", f"--out={tmp_path / 'day'}"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all parts of the pack are in" in done.stdout
    assert (tmp_path / "day-work" / "pack" / "teacher" / "model.safetensors").is_file()
    figures = json.loads((tmp_path / "day" / "day.json").read_text())["parts"]["speed"]["figures"]
    assert figures["student, batch 128"]["rows_per_second"] > 0
    assert {path.name for path in (tmp_path / "day").iterdir()} == {"day.json", "day.log"}
