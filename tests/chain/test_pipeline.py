# SPDX-License-Identifier: Apache-2.0
"""The chain on a tiny net: every stage's own flags, real results, and a page made of them."""

import json
import shlex
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from chain import record, scores
from chain.record import changed_settings, describe_inputs
from chain.run import run_stages
from chain.stages import ROOT, absolute, make_stages
from chain.story import make_story
from chain.view import View
from chain.work import stage_work
from configs import pipeline_quickstart
from edad_jax.export import formats
from edad_jax.files import read_json
from edad_jax.report.page import render_page
from edad_jax.tasks.finetune import finetune
from edad_jax.training.metrics import read_metrics
from tests.tiny_pipeline import tiny_pipeline
from tests.tiny_tasks import write_tagging


def read_config(words: Sequence[str]) -> ConfigDict:
    """Returns the configuration that a command of launch/ would read."""
    given = [word for word in words if not word.startswith("-") or word.startswith("--config")]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ml_collections: how it loads a configuration file
        values(given)
    return values.config


@pytest.fixture(scope="module")
def done(finished, tmp_path_factory):
    """Returns (config, workdir, stages) of a pipeline whose training is the session's tiny run.

    Fine-tuning and export run here and now, by the flags that the chain gives them.
    """
    inputs = tmp_path_factory.mktemp("pipeline")
    write_tagging(inputs / "tagged")
    for name in ("corpus.txt", "teacher"):
        (inputs / name).symlink_to(finished.inputs / name)
    config = absolute(tiny_pipeline(inputs))
    workdir = inputs / "run"
    stages = make_stages(config, workdir)
    described = describe_inputs(config)
    for stage in stages:
        words = record.begin(stage, workdir, described)
        folder = workdir / stage.name
        assert words[-2:] == [stage.cell.folder_flag, str(folder)]
        if stage.name == "rows":
            folder.mkdir(parents=True)
            for name in ("vocabulary", "rows"):
                shutil.copytree(finished.workdir / name, folder / name)
                shutil.copy(finished.workdir / f"{name}.stage.json", folder)
        elif stage.name == "train":
            shutil.copytree(finished.workdir, folder)
        elif stage.name.startswith("tune-"):
            finetune(read_config(words[:-2]), str(folder))
        else:
            read = dict(word.lstrip("-").split("=") for word in words if "=" in word)
            formats.export(formats.load(read["model"]), read["format"], folder)
            (workdir / f"{stage.name}.log").write_text("largest difference from Flax: 0.01\n")
        record.end(stage, workdir, 1.0)
    return config, workdir, stages


@pytest.fixture(scope="module")
def story(done):
    return json.loads(json.dumps(make_story(*done)))  # as report.json holds it


def test_the_stages_are_skipped_when_all_are_done(done, monkeypatch):
    config, workdir, stages = done
    monkeypatch.setattr(sys, "executable", "no such program")  # nothing may be started
    view = View([stage.title for stage in stages], [1.0] * len(stages))
    run_stages(stages, workdir, describe_inputs(config), view)


def test_the_training_stage_is_given_what_the_configuration_says(done, finished):
    config, workdir, stages = done
    train = next(stage for stage in stages if stage.name == "train")
    read = read_config(train.cell.words)
    assert read.prepared == str(workdir / "rows")
    for key, value in config.items():
        if key in read and key not in ("prepared", "corpus"):
            ours, theirs = (
                each.to_dict() if hasattr(each, "to_dict") else each for each in (value, read[key])
            )
            assert ours == theirs, key


def test_a_setting_of_fine_tuning_concerns_fine_tuning_alone(done):
    config, workdir, _ = done
    other = tiny_pipeline(Path(config.data).parent, finetune__epochs=3)
    stages = make_stages(absolute(other), workdir)
    changed = changed_settings(stages, workdir, describe_inputs(absolute(other)))
    assert changed == {"tune-student": ["--config.epochs: got 3, the stage had 2"]}
    again = record.read_what_changed(stages, workdir, changed)
    assert [stage.name for stage in again] == ["tune-student", "onnx-int8", "onnx"]


def test_the_scores_are_those_of_fine_tuning_and_int8_is_scored_by_the_runtime(done, story):
    _, workdir, _ = done
    for net in ("base", "teacher", "student"):
        summary = read_json(workdir / f"tune-{net}" / "summary.json", expected="scores")
        mine = story["scores"][net]
        assert mine["f1"] == pytest.approx(summary["means"]["test/f1"]["mean"], abs=1e-9)
        assert mine["low"] <= mine["f1"] <= mine["high"]
    said = scores.read_predictions(workdir / "onnx-int8.predictions.tsv")
    assert story["scores"]["int8"]["f1"] == pytest.approx(
        scores.score_models({"int8": [said]}, "int8")["int8"]["f1"]
    )
    assert story["agreement"]["student"] > 0.99  # the float32 file is the same net
    assert story["scores"]["base"]["difference"] is None


def test_the_story_has_words_that_the_base_lacks_and_what_they_were(done, story):
    config, _, _ = done
    assert story["vocabulary"]["added"] == config.vocabulary.size
    lengths = [len(each["word"]) for each in story["vocabulary"]["longest"]]
    assert lengths == sorted(lengths, reverse=True) and lengths
    for each in story["vocabulary"]["longest"]:
        assert "".join(piece.removeprefix("##") for piece in each["before"]) == each["word"]


def test_what_an_earlier_pipeline_of_other_settings_left_is_not_told(done):
    """As after --redo with a method that trains no teacher, and without timing."""
    config, workdir, stages = done
    (workdir / "speed").mkdir()
    (workdir / "speed" / "edge.json").write_text('{"models": []}')
    fewer = [stage for stage in stages if stage.name != "tune-teacher"]
    story = make_story(config, workdir, fewer)
    shutil.rmtree(workdir / "speed")
    assert list(story["scores"]) == ["base", "student", "int8"]
    assert list(story["sizes"]) == ["base", "student", "int8"]
    assert story["speed"] == {}


def test_the_story_names_no_folder_of_this_machine(done, story):
    config, workdir, _ = done
    told = json.dumps(story)
    assert not [path for path in (workdir.parent, Path.home(), ROOT) if f"{path}/" in told]
    commands = [shlex.split(stage["command"]) for stage in story["stages"]]
    assert commands[1][:3] == ["python", "launch/train.py", "--config=configs/edad.py"]
    for number, word in (
        (0, "--config.corpus.files=TEXT"),
        (0, "--config.teacher.checkpoint=TEACHER"),
        (1, "--config.prepared=WORKDIR/rows"),
        (2, "--config.data=DATA"),
    ):
        assert word in commands[number]
    assert story["settings"]["teacher.checkpoint"] == Path(config.teacher.checkpoint).name


def test_the_page_is_made_of_it(done, story):
    _, workdir, _ = done
    html = render_page(story, read_metrics(workdir / "train" / "metrics.jsonl"))
    for title in ("Teacher: pretraining losses", "Held-out text", "Entities, right and wrong"):
        assert title in html
    assert "largest difference from Flax: 0.01" in html


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"prepared": "rows"},
            "got config.prepared=rows, expected none: a pipeline makes its rows",
        ),
        ({"data": ""}, "got neither of config.data and config.labels.packages"),
        ({"labels__packages": ("numpy",)}, "got both of config.data and config.labels.packages"),
        ({"finetune__task": "answering"}, "config.finetune.task='answering', expected tagging"),
        ({"method": "adaptation"}, "config.method='adaptation' trains no student"),
        (
            {"finetune__max_length": 999},
            "finetune.max_length=999: the student will have config.stu",
        ),
        (
            {"speed__seconds": 1.0, "speed__length": 999},
            "config.speed.length=999: the student will",
        ),
        ({"method": "triple", "soft_labels": True}, "config.soft_labels=True .* adapts none"),
    ],
)
def test_what_cannot_be_a_pipeline_is_told_before_anything_runs(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make_stages(tiny_pipeline(tmp_path, **changes), tmp_path)


def test_the_quick_start_makes_its_labels_and_times_three_models(tmp_path, monkeypatch):
    monkeypatch.setattr("configs.quickstart._find_teacher", lambda: str(tmp_path))
    config = pipeline_quickstart.get_config()
    stages = {stage.name: stage for stage in make_stages(config, tmp_path)}
    assert list(stages)[:2] == ["labels", "rows"] and list(stages)[-1] == "speed"
    assert f"--config.data={tmp_path}/labels" in stages["tune-base"].cell.words
    assert f"{tmp_path}/base-onnx,{tmp_path}/onnx,{tmp_path}/onnx-int8" in " ".join(
        stages["speed"].cell.words
    )


def test_soft_labels_have_the_student_learn_from_the_tuned_teacher(tmp_path):
    config = tiny_pipeline(tmp_path, soft_labels=True)
    stages = {stage.name: stage.cell.words for stage in make_stages(config, tmp_path)}
    teacher = f"--config.teacher={tmp_path}/tune-teacher/model"
    assert [name for name, words in stages.items() if teacher in words] == ["tune-student"]


def test_more_updates_are_more_work_of_training_alone(done):
    config, _, _ = done
    more = config.copy_and_resolve_references()
    more.max_steps *= 2
    one, two = stage_work(config, 100), stage_work(more, 100)
    assert {name for name in one if one[name] != two[name]} == {"train"}
    assert one["tune-teacher"] > one["tune-base"] > one["tune-student"]
