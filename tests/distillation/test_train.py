# SPDX-License-Identifier: Apache-2.0
"""The whole run, in this process: what it leaves, and what stops it."""

import json
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from edad_jax.data import prepare
from edad_jax.distillation.train import train
from edad_jax.models import pretrained
from edad_jax.training import state
from edad_jax.training.checkpoint import Checkpointer, find_faults
from edad_jax.training.metrics import read_metrics
from edad_jax.training.workdir import hold_workdir
from tests.quick_programs import IN_PROCESS
from tests.tiny_models import assert_trees_equal
from tests.tiny_run import (
    ADDED_WORDS,
    MEASURE_EVERY,
    ROOT,
    SAVE_EVERY,
    STEPS,
    call_before_step,
    change_teacher,
    environment,
    make_inputs,
    run_of,
    tiny_config,
    write_corpus,
    write_teacher,
)
from tests.tiny_text import write_tokenizer

EDAD_TERMS = {
    "teacher/mlm",
    "teacher/nsp",
    "student/mlm",
    "student/nsp",
    "distill/attention",
    "distill/hidden",
    "alpha",
    "loss",
}


def step_lines(workdir):
    return [line for line in read_metrics(workdir / "metrics.jsonl") if "loss" in line]


def heldout_lines(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return [line for line in lines if "heldout/teacher_mlm_loss" in line]


def weights(workdir, net="student"):
    return (workdir / net / "model.safetensors").read_bytes()


def restore(config, workdir):
    """Returns (step, trained parameters, the run that they belong to)."""
    run = run_of(config, prepare.prepare(config, workdir).vocabulary, total_steps=config.max_steps)
    begun = state.unpack(state.begin(run.trained, run.settings.optimizers))
    like = jax.tree.map(np.asarray, begun)
    with Checkpointer(workdir / "checkpoints", keep=2) as checkpoints:
        step, restored = checkpoints.restore(like)
    return step, jax.device_get(restored).params, run


@pytest.fixture
def prepared_config(finished):
    """Returns tiny_config(...) on the rows of the finished run: nothing is prepared again."""

    def make(**changes):
        changes = {"prepared": str(finished.workdir)} | changes
        return tiny_config(finished.inputs, **changes)

    return make


# ---- what a run leaves


def test_a_run_leaves_what_the_user_is_promised(finished):
    left = {path.name for path in finished.workdir.iterdir()}
    assert left >= {
        "student",
        "teacher",
        "summary.json",
        "training.png",
        "metrics.jsonl",
        "config.json",
        "checkpoints",
        "vocabulary",
        "rows",
    }
    for net in ("student", "teacher"):
        files = {path.name for path in (finished.workdir / net).iterdir()}
        assert files >= {"config.json", "model.safetensors", "vocab.txt", "README.md"}
    assert (finished.workdir / "training.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert json.loads((finished.workdir / "summary.json").read_text()) == finished.summary
    assert finished.summary["steps"] == STEPS


def test_the_models_on_disk_are_the_last_state_bit_for_bit(finished):
    step, trained, run = restore(tiny_config(finished.inputs), finished.workdir)
    assert step == STEPS
    config, student = pretrained.load_model(finished.workdir / "student")
    trained["student"].pop("projection")
    assert config == run.nets.student.config
    assert_trees_equal(student, trained["student"])
    config, teacher = pretrained.load_model(finished.workdir / "teacher")
    assert config == run.nets.teacher.config
    assert {"extension", "mlm", "nsp"} <= set(trained["teacher"])
    for part, tree in trained["teacher"].items():
        assert_trees_equal(teacher[part], tree)


def test_the_teacher_keeps_its_original_bert_and_nothing_else(finished):
    before = load_file(finished.inputs / "teacher" / "model.safetensors")
    after = load_file(finished.workdir / "teacher" / "model.safetensors")
    table, words = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"
    assert len(after[table]) == len(before[table]) + ADDED_WORDS
    for name, tensor in before.items():
        same = np.array_equal(
            after[name][: len(tensor)] if name in (table, words) else after[name], tensor
        )
        assert same == (not name.startswith("cls.")), name


def test_added_words_stand_behind_the_vocabulary_of_the_teacher(finished):
    read = lambda path: path.read_text(encoding="utf-8").splitlines()  # noqa: E731
    before = read(finished.inputs / "teacher" / "vocab.txt")
    after = read(finished.workdir / "student" / "vocab.txt")
    assert after[: len(before)] == before
    assert len(after) == len(before) + ADDED_WORDS
    assert "hippocampus" in after and "hippocampus" not in before


def test_every_step_logs_every_loss_term(finished):
    lines = step_lines(finished.workdir)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line in lines:
        assert set(line) >= EDAD_TERMS
        alpha = 1 - (line["step"] - 1) / STEPS
        assert line["alpha"] == pytest.approx(alpha, abs=1e-6)
        teacher = line["teacher/mlm"] + line["teacher/nsp"]
        distill = line["distill/attention"] + line["distill/hidden"]
        student = line["student/mlm"] + line["student/nsp"]
        assert line["loss"] == pytest.approx(teacher + alpha * distill + (1 - alpha) * student)
    assert all("tokens_per_second" in line for line in lines[1:])


def test_heldout_text_is_measured_at_the_start_regularly_and_at_the_end(finished):
    lines = heldout_lines(finished.workdir)
    assert [line["step"] for line in lines] == list(range(0, STEPS + 1, MEASURE_EVERY))
    assert finished.summary["heldout"]["start"] == lines[0]
    assert finished.summary["heldout"]["end"] == lines[-1]


def test_the_heldout_figures_are_shares_and_training_betters_them(finished):
    start, end = (finished.summary["heldout"][when] for when in ("start", "end"))
    for net in ("teacher", "student"):
        assert 0 < end[f"heldout/{net}_mlm_accuracy"] < 1
        assert 0 < end[f"heldout/{net}_nsp_accuracy"] < 1
        assert end[f"heldout/{net}_mlm_accuracy"] > start[f"heldout/{net}_mlm_accuracy"]
        assert end[f"heldout/{net}_mlm_loss"] < start[f"heldout/{net}_mlm_loss"]
    assert 0 <= start["heldout/agreement"] < end["heldout/agreement"] <= 1


def test_the_model_card_names_data_settings_and_figures(finished):
    card = (finished.workdir / "student" / "README.md").read_text()
    accuracy = finished.summary["heldout"]["end"]["heldout/student_mlm_accuracy"]
    assert "corpus.txt" in card
    assert "| batch_size | 8 |" in card
    assert f"{accuracy:.6g}" in card


def test_a_run_that_is_finished_is_not_done_again(finished, tmp_path):
    workdir = shutil.copytree(finished.workdir, tmp_path / "run")
    kept = [
        *(workdir / "rows").rglob("*"),
        *(workdir / "vocabulary").iterdir(),
        *(workdir / "checkpoints").rglob("*.json"),
    ]
    before = {path: path.stat().st_mtime_ns for path in kept if path.is_file()}
    summary = train(tiny_config(finished.inputs), str(workdir))
    assert len(before) > 8
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for net in ("student", "teacher"):
        assert weights(workdir, net) == weights(finished.workdir, net)
    log = "metrics.jsonl"
    assert (workdir / log).read_bytes() == (finished.workdir / log).read_bytes()
    assert summary["heldout"] == finished.summary["heldout"]


def test_two_runs_leave_the_same_bits(finished, prepared_config, tmp_path):
    train(prepared_config(), str(tmp_path / "again"))
    for net in ("student", "teacher"):
        assert weights(tmp_path / "again", net) == weights(finished.workdir, net)


# ---- other ways to run


def test_the_two_stages_one_after_the_other(finished, prepared_config, tmp_path):
    adaptation, distillation = tmp_path / "adaptation", tmp_path / "distillation"
    train(prepared_config(method="adaptation"), str(adaptation))
    assert not (adaptation / "student").exists()
    assert set(step_lines(adaptation)[0]) >= {"teacher/mlm", "teacher/nsp", "loss"}
    assert not any(name.startswith("student") for name in step_lines(adaptation)[0])

    adapted = adaptation / "teacher"
    train(
        prepared_config(method="distillation", teacher__checkpoint=str(adapted)),
        str(distillation),
    )
    assert not (distillation / "teacher").exists()
    card = (distillation / "student" / "README.md").read_text()
    assert "no loss of this run reached them: MLM, NSP" in card
    assert (adapted / "model.safetensors").read_bytes() == weights(adaptation, "teacher")
    first, last = (step_lines(distillation)[i] for i in (0, -1))
    assert last["distill/hidden"] < first["distill/hidden"]
    config, _ = pretrained.load_model(distillation / "student")
    assert config.vocab_size == pretrained.load_model(adapted)[0].vocab_size
    # The teacher measured there is the one that the first stage left.
    end, start = heldout_lines(adaptation)[-1], heldout_lines(distillation)[0]
    for name in ("heldout/teacher_mlm_loss", "heldout/teacher_mlm_accuracy"):
        assert start[name] == pytest.approx(end[name], rel=1e-6)


@pytest.mark.parametrize(
    "without", [{"student__extension": None}, {"student__extension__hidden_size": 0}]
)
def test_a_student_without_extension_is_an_ordinary_bert(prepared_config, tmp_path, without):
    train(prepared_config(max_steps=1, **without), str(tmp_path / "run"))
    config = json.loads((tmp_path / "run" / "student" / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert "auto_map" not in config
    assert not (tmp_path / "run" / "student" / "modeling_exbert.py").exists()
    names = load_file(tmp_path / "run" / "student" / "model.safetensors")
    assert not any("extension" in name or "gate" in name for name in names)
    loaded, _ = pretrained.load_model(tmp_path / "run" / "student")
    assert loaded.extension is None


def test_micro_batches_give_the_losses_of_the_whole_batch(prepared_config, tmp_path):
    no_dropout = {
        f"{net}__{rate}": 0.0
        for net in ("teacher", "student")
        for rate in ("hidden_dropout_prob", "attention_probs_dropout_prob")
    }
    lines = []
    for parts in (1, 2):
        config = prepared_config(max_steps=2, accumulate_steps=parts, **no_dropout)
        train(config, str(tmp_path / str(parts)))
        lines.append(step_lines(tmp_path / str(parts)))
    for whole, split in zip(*lines, strict=True):
        for name in EDAD_TERMS:
            assert split[name] == pytest.approx(whole[name], rel=1e-5), name


def test_epochs_decide_where_max_steps_does_not(finished, prepared_config, tmp_path):
    rows = finished.summary["data"]["rows"]["train"]["rows"]
    config = prepared_config(max_steps=0, epochs=20 / rows, method="adaptation")
    assert train(config, str(tmp_path))["steps"] == 20 // 8


# ---- what stops a run


def test_sigterm_saves_and_the_next_call_ends_as_if_nothing_had_been(
    finished, prepared_config, tmp_path, monkeypatch
):
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        call_before_step(patch, 4, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit, match=f"step 5 of {STEPS}; the checkpoint is saved"):
            train(prepared_config(), str(tmp_path))
    assert signal.getsignal(signal.SIGTERM) == handler
    assert find_faults(tmp_path / "checkpoints", 5) == []
    assert not (tmp_path / "student").exists()
    train(prepared_config(), str(tmp_path))
    for net in ("student", "teacher"):
        assert weights(tmp_path, net) == weights(finished.workdir, net)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_what_to_try(prepared_config, tmp_path):
    config = prepared_config(optimizer__student_learning_rate=1e30, checkpoint__every_steps=1)
    with pytest.raises(FloatingPointError, match="^step 2: .*student_learning_rate.*new --workdir"):
        train(config, str(tmp_path))
    assert not (tmp_path / "student").exists()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdecimal()] == ["1"]
    step, trained, _ = restore(config, tmp_path)
    assert step == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))


def test_a_checkpoint_with_a_nan_in_it_is_an_error_before_the_first_step(prepared_config, tmp_path):
    bias = "cls.seq_relationship.bias"
    teacher = write_teacher(tmp_path / "teacher")
    change_teacher(teacher, {bias: np.array([np.nan, 0], np.float32)})
    with pytest.raises(ValueError, match=f"teacher: got NaN or infinity in 1 tensors .{bias}."):
        train(prepared_config(teacher__checkpoint=str(teacher)), str(tmp_path / "run"))


FULL_DISK = """
import resource, signal, sys, time
from pathlib import Path
from edad_jax.distillation import train
from tests.tiny_run import SAVE_EVERY, tiny_config

inputs, prepared, workdir = (Path(argument) for argument in sys.argv[1:])
make_batch_at, leave_result = train.make_batch_at, train.leave_result
free, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def batches_that_fill_the_disk(*arguments, **settings):
    batch_at = make_batch_at(*arguments, **settings)
    def fill_and_give(step):
        if step == SAVE_EVERY:
            saved = workdir / "checkpoints" / "checksums" / f"{SAVE_EVERY}.json"
            while not saved.exists():
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        return batch_at(step)
    return fill_and_give

def free_the_disk_and_leave(*arguments):
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    return leave_result(*arguments)

train.make_batch_at = batches_that_fill_the_disk
train.leave_result = free_the_disk_and_leave
train.train(tiny_config(inputs, prepared=str(prepared)), str(workdir))
"""


def test_a_full_disk_costs_checkpoints_but_not_the_run(finished, prepared_config, tmp_path):
    """No file can grow past 20 kB from the third step on, until training is over.

    In a process of its own: what orbax drops on the way would be found in a later test.
    """
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, finished.inputs, finished.workdir, tmp_path],
        env=environment(devices=4, programs=IN_PROCESS),
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for step in (4, 6, 8):
        assert f"The checkpoint of step {step} was not saved" in done.stderr
    assert "Training goes on; the newest whole checkpoint" in done.stderr
    assert "The last checkpoint could not be saved" in done.stderr
    assert weights(tmp_path) == weights(finished.workdir)  # the result is whole all the same
    steps = [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdecimal()]
    assert steps == [str(SAVE_EVERY)]
    assert find_faults(tmp_path / "checkpoints", SAVE_EVERY) == []
    train(prepared_config(), str(tmp_path))  # from the old checkpoint, to the same end
    assert weights(tmp_path) == weights(finished.workdir)
    assert find_faults(tmp_path / "checkpoints", STEPS) == []


def test_a_teacher_that_changed_since_the_run_began_is_an_error(prepared_config, tmp_path):
    """No checkpoint holds the frozen weights: going on with others would mix two runs."""
    teacher = write_teacher(tmp_path / "teacher")
    config = prepared_config(teacher__checkpoint=str(teacher), max_steps=1, method="adaptation")
    train(config, str(tmp_path / "run"))
    change_teacher(teacher, {"bert.pooler.dense.bias": np.ones(24, np.float32)})
    with pytest.raises(ValueError, match="put back the teacher's checkpoint, or choose another"):
        train(config, str(tmp_path / "run"))


def test_a_teacher_that_cannot_be_read_is_told_before_any_text_is_prepared(finished, tmp_path):
    teacher = write_teacher(tmp_path / "teacher")
    (teacher / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    config = tiny_config(finished.inputs, teacher__checkpoint=str(teacher))
    with pytest.raises(ValueError, match="is a Git LFS pointer"):
        train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run" / "rows").exists()


def test_two_programs_do_not_train_in_one_folder(finished):
    with hold_workdir(finished.workdir):
        with pytest.raises(ValueError, match="another program is at work there"):
            train(tiny_config(finished.inputs), str(finished.workdir))


# ---- settings and input that cannot be used: one error, which names the option


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "edat"}, "config.method='edat' is not one of edad, adaptation, distillation"),
        ({"dtype": "float16"}, "config.dtype='float16' is not one of auto, float32, bfloat16"),
        ({"alpha": "lineer"}, "lineer"),
        ({"parallel__engine": "pjit"}, "config.parallel.engine='pjit'"),
        ({"batch_size": 6}, "config.batch_size=6 does not split over 4 devices x 1 micro-batches"),
        ({"batch_size": 0}, "config.batch_size=0, expected at least 1"),
        ({"accumulate_steps": 3}, "4 devices x 3 micro-batches; choose a multiple of 12"),
        ({"heldout__every_steps": -1}, "config.heldout.every_steps=-1, expected 0"),
        ({"heldout__max_rows": 0}, "config.heldout.max_rows=0, expected at least 1"),
        ({"checkpoint__keep": 0}, "config.checkpoint.keep=0, expected at least 1"),
        ({"epochs": 0.0, "max_steps": 0}, "config.epochs=0.0, expected more than 0"),
        ({"rows__workers": -1}, "config.rows.workers=-1, expected 0"),
        ({"optimizer__student_learning_rate": -1e-4}, "student_learning_rate=-0.0001, expected 0"),
        ({"optimizer__clip_norm": -1.0}, "config.optimizer.clip_norm=-1.0, expected more than 0"),
        ({"optimizer__name": "adma"}, "adma"),
        ({"optimizer__schedule": "liner"}, "liner"),
        ({"student__hidden_size": 13}, "hidden_size=13.*num_attention_heads=3"),
    ],
)
def test_wrong_settings_are_an_error_before_any_text_is_prepared(
    finished, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        train(tiny_config(finished.inputs, **changes), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student__num_hidden_layers": 3}, "config.student.num_hidden_layers"),
        ({"student__num_attention_heads": 4}, "config.student.num_attention_heads=3"),
        ({"corpus__files": "", "prepared": ""}, "--config.corpus.files="),
        ({"corpus__dataset": "x", "prepared": ""}, "names files and dataset"),
        ({"corpus__files": "/nowhere/*.txt", "prepared": ""}, "got no file for '/nowhere/"),
        ({"prepared": "/nowhere"}, "config.prepared='/nowhere': got no finished rows"),
        (
            {"teacher__checkpoint": "no-such/bert", "prepared": ""},
            "tokenizer no-such/bert is not on this machine and .*--config.teacher.checkpoint=",
        ),
        ({"teacher__checkpoint": "no-such/bert"}, "--config.teacher.checkpoint="),
        (
            {"teacher__random_heads": ("mlmm",)},
            "fresh names \\['mlmm'\\]; it may name pooler, mlm, nsp",
        ),
    ],
)
def test_wrong_settings_are_an_error_that_names_the_option(
    prepared_config, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        train(prepared_config(**changes), str(tmp_path / "run"))


def test_an_empty_corpus_file_is_an_error_that_names_file_and_option(finished, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(ValueError, match="(?s)--config.corpus.files=.*empty.txt: empty file"):
        train(tiny_config(finished.inputs, corpus__files=str(empty)), str(tmp_path / "run"))


def test_a_workdir_that_got_no_text_takes_the_text_later(tmp_path):
    inputs = make_inputs(tmp_path / "inputs")
    (inputs / "corpus.txt").write_text("\n\n \n")
    with pytest.raises(ValueError, match="got 0 documents from 1 files"):
        train(tiny_config(inputs, max_steps=1), str(tmp_path / "run"))
    write_corpus(inputs / "corpus.txt")
    assert train(tiny_config(inputs, max_steps=1), str(tmp_path / "run"))["steps"] == 1


def test_a_vocabulary_that_does_not_fit_the_checkpoint_is_an_error(finished, tmp_path):
    words = len((finished.inputs / "teacher" / "vocab.txt").read_text("utf-8").splitlines())
    base = write_tokenizer(tmp_path / "base")
    with open(base / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("oneword\n")
    with pytest.raises(
        ValueError, match=f"tokenizer has {words + 1} pieces, the model's word table {words} rows"
    ):
        train(tiny_config(finished.inputs, vocabulary__base=str(base)), str(tmp_path / "run"))


def test_a_tensor_of_another_shape_is_an_error_that_names_it(prepared_config, tmp_path):
    teacher = write_teacher(tmp_path / "teacher")
    change_teacher(teacher, {"bert.embeddings.LayerNorm.weight": np.ones(5, np.float32)})
    message = r"embeddings.LayerNorm.weight: got float32 \[5\], .*\[24\]"
    with pytest.raises(ValueError, match=message):
        train(prepared_config(teacher__checkpoint=str(teacher)), str(tmp_path / "run"))


def test_a_missing_head_is_an_error_that_names_the_option_and_the_option_helps(
    prepared_config, tmp_path
):
    teacher = write_teacher(tmp_path / "teacher")
    names = load_file(teacher / "model.safetensors")
    change_teacher(teacher, {name: None for name in names if name.startswith("cls.predictions")})
    option = """--config.teacher.random_heads="\\('mlm',\\)\""""
    with pytest.raises(ValueError, match=option):
        train(prepared_config(teacher__checkpoint=str(teacher)), str(tmp_path / "run"))
    config = prepared_config(
        teacher__checkpoint=str(teacher),
        teacher__random_heads=("mlm",),
        max_steps=1,
        method="adaptation",
    )
    assert train(config, str(tmp_path / "fresh"))["steps"] == 1
