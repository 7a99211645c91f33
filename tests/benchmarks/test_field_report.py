# SPDX-License-Identifier: Apache-2.0
"""The report of a field day: what was measured, with device, versions and commands, or nothing."""

import copy

import pytest

from benchmarks.field_day import PARTS
from benchmarks.field_report import main, make_report
from edad_jax.files import write_json


def step(milliseconds, forecast):
    return {
        "batch": [128, 128],
        "device": "NVIDIA H100 80GB HBM3",
        "dtype": "bfloat16",
        "seconds": (milliseconds + 2) / 1e3,
        "seconds_p10": milliseconds / 1e3,
        "seconds_p90": (milliseconds + 3) / 1e3,
        "seconds_in_a_row": milliseconds / 1e3,
        "model_gflop": 10_050.0,
        "peak_gb": 20.5,
        "compile_seconds": 70.0,
        "xla_flags": "",
        "forecast": forecast,
    }


def training(seconds, pieces):
    return {
        "updates": 1_000,
        "pieces": pieces,
        "seconds": seconds,
        "tokens_per_second": pieces / seconds,
        "heldout": {"end": {"heldout/student_mlm_accuracy": 0.25}},
    }


FORECAST = {
    "target": "h100x1",
    "milliseconds": 40.0,
    "memory": {"peak": 18.0},
    "rows": [{"part": "attention", "net": "teacher", "direction": "forward", "seconds": 0.004}],
}
FIGURES = {
    "core": {
        "device": {"kind": "NVIDIA H100 80GB HBM3"},
        "attention": {"ok": True, "worst": 0.003, "bound": 0.02, "where": "heads of 21"},
        "resume": {"ok": False, "worst": 0.5, "bound": 0.0, "where": "the student"},
    },
    "steps": {
        "EDAD": step(50.0, FORECAST)
        | {
            "profile": {
                "rows": [
                    {
                        "part": "attention",
                        "net": "teacher",
                        "direction": "forward",
                        "seconds": 0.005,
                        "share": 0.1,
                    }
                ]
            }
        },
        "adaptation": step(40.0, FORECAST),
        "distillation": step(22.0, {"reason": "KeyError: 's4'"}),
        "EDAD, batch 512": {"reason": "RESOURCE_EXHAUSTED: out of memory"},
    },
    "torch": {
        "edad": {
            "torch": "2.11.0",
            "steps": {
                "tuned": {"edad": {"seconds": 0.1, "tokens_per_second": 163_840, "peak_gb": 30.0}}
            },
        }
    },
    "train": {
        "plan": {"seconds": 63.0, "measured": True, "updates": {"EDAD": 1_000}},
        "EDAD": training(60.0, 20e6),
        "adaptation": training(39.0, 16e6),
        "distillation": training(22.0, 16e6),
    },
    "finetune": {
        f"{student}, NCBI-disease-IOB": {
            "seeds": {
                str(seed): {"failed": seed == 2, "test": {"f1": f1 + seed / 1_000}}
                for seed in range(5)
            }
        }
        for student, f1 in (("EDAD", 0.70), ("two stages", 0.69))
    },
    "speed": {
        "student, batch 1": {
            "batch": [1, 128],
            "seconds": 0.001,
            "seconds_in_a_row": 0.0005,
            "rows_per_second": 2_000.0,
        }
    },
}


@pytest.fixture
def day():
    """Returns a day on which every part has its result."""
    return copy.deepcopy(
        {
            "versions": {
                "device": "NVIDIA H100 80GB HBM3, 81559 MiB, 580.159.04",
                "machine": {
                    "machine": "x86_64",
                    "processor": "a CPU",
                    "cores": 16,
                    "system": "Linux",
                    "python": "3.12.3",
                },
                "packages": {"jax": "0.11.2"},
            },
            "is_rehearsal": False,
            "seconds": 500.0,
            "parts": {
                part.name: {
                    "title": part.title,
                    "command": f"python -m benchmarks.field_{part.name}",
                    "status": "done",
                    "reason": "",
                    "seconds": 10.0,
                    "figures": FIGURES[part.name],
                }
                for part in PARTS
            },
        }
    )


def test_every_part_has_its_table_with_device_versions_and_command(day):
    text = make_report(day)
    assert "NVIDIA H100 80GB HBM3, 81559 MiB, 580.159.04" in text and "jax 0.11.2" in text
    for part in PARTS:
        assert f"`benchmarks/field_day.sh --only={part.name}`" in text
        assert f"`python -m benchmarks.field_{part.name}`" in text
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    edad = next(row for row in cells if row[:2] == ["EDAD", "128 x 128"])
    # in a row, forecast, their ratio, tokens/s, MFU of 10.05 TFLOP in 50 ms on 989 TFLOP/s
    assert edad[4:9] == ["50.0", "40.0", "1.25", "327,680", "20.3%"]
    assert "Two stages take 1.24 times the single pass" in text
    assert ["attention", "teacher", "forward", "5.00", "10.0%", "4.00"] in cells
    assert ["2.11.0, tuned", "edad", "100.0", "163,840", "30.0"] in cells
    assert "60.0 s for 20.0M pieces, the two stages 61.0 s for 16.0M pieces" in text
    assert ["EDAD", "70.20 ± 0.29"] in cells  # of four seeds: the third was not finite


def test_what_does_not_hold_or_has_no_figure_is_told(day):
    text = make_report(day)
    assert "| **no**" in text
    assert "- EDAD, batch 512: no figure, RESOURCE_EXHAUSTED: out of memory" in text
    assert "distillation: no forecast, KeyError: 's4'." in text


def test_nothing_is_written_where_a_part_has_no_result_and_the_part_is_named(day, tmp_path):
    day["parts"]["torch"] |= {"status": "out of time", "reason": "stopped after 40 s"}
    del day["parts"]["speed"]
    write_json(tmp_path / "day.json", day)
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), f"--out={tmp_path / 'gpu.md'}"])
    assert "torch: out of time: stopped after 40 s\n  speed: it was not run" in str(stopped.value)
    assert "--without=NAME" in str(stopped.value)
    assert not (tmp_path / "gpu.md").exists()
    main([str(tmp_path), f"--out={tmp_path / 'gpu.md'}", "--without=speed", "--partial=torch"])
    text = (tmp_path / "gpu.md").read_text()
    assert "Left out: speed." in text
    assert "Not all of it: out of time, stopped after 40 s." in text


def test_a_part_without_any_figure_cannot_be_taken_in_part(day):
    day["parts"]["steps"] |= {"status": "failed", "reason": "no device", "figures": {}}
    with pytest.raises(ValueError, match="steps: failed: no device"):
        make_report(day, partial=["steps"])


def test_a_rehearsals_figures_never_get_into_the_docs(day, tmp_path):
    day["is_rehearsal"] = True
    write_json(tmp_path / "day.json", day)
    with pytest.raises(SystemExit, match="got a rehearsal's figures"):
        main([str(tmp_path)])
    assert "no figure means anything" in make_report(day)


def test_a_folder_without_a_day_is_told(tmp_path):
    with pytest.raises(SystemExit, match="expected what benchmarks/field_day.sh left"):
        main([str(tmp_path)])
