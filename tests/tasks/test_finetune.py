# SPDX-License-Identifier: Apache-2.0
import csv
import json
import os
import shutil
import signal
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export import huggingface
from edad_jax.models import init, pretrained
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier
from edad_jax.tasks import finetune as room
from edad_jax.tasks import train as loop
from edad_jax.tasks.data.labelled import read_labelled
from edad_jax.tasks.data.tagged import read_tagged
from edad_jax.tasks.finetune import default_workdir, finetune
from edad_jax.tasks.prediction import make_predictor
from edad_jax.tasks.result import describe
from edad_jax.tasks.rows import name_labels
from edad_jax.tasks.setup import TASKS, prepare_examples
from edad_jax.tasks.step import TaskNet
from edad_jax.training.checkpoint import Checkpointer
from edad_jax.training.metrics import read_metrics
from edad_jax.training.parallel import Parallel
from edad_jax.training.progress import TIME_COSTS
from edad_jax.training.workdir import hold_workdir
from tests.conftest import FinishedRun
from tests.tiny_run import ROOT, command, environment, write_teacher
from tests.tiny_tasks import (
    tiny_sentences,
    tiny_tuning,
    write_exbert,
    write_labelled,
    write_tagged,
    write_tagging,
)

EPOCHS, SAVE_EVERY = 3, 4  # of 6 steps; after so many steps
# The program of a step is then the same for any number of them; and Adam does not scale up the
# rounding in gradients that are 0, those of the keys' biases.
CONSTANT = {"optimizer__schedule": "constant", "optimizer__eps": 1e-3}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns the folders of the session's `finished` run; its nets have random weights here."""
    folder = tmp_path_factory.mktemp("encoders")
    write_teacher(folder / "teacher")
    write_exbert(folder / "run" / "teacher", layers=2, width=24)
    write_exbert(folder / "run" / "student")
    return FinishedRun(folder, folder / "run", {})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tagging(tmp_path_factory.mktemp("tagging") / "words")


@pytest.fixture(scope="module")
def tuned(finished, data, tmp_path_factory):
    """Returns (workdir, summary) of a student tuned with two seeds; tests change nothing there."""
    workdir = tmp_path_factory.mktemp("tuned") / "run"
    config = tiny_tuning(
        "tagging",
        finished.workdir / "student",
        data,
        num_seeds=2,
        epochs=EPOCHS,
        checkpoint__every_steps=SAVE_EVERY,
        **CONSTANT,
    )
    return workdir, finetune(config, str(workdir))


@pytest.fixture(scope="module")
def plain(finished, tmp_path_factory):
    """Returns (workdir, summary) of a plain BERT, tuned for an epoch on a train file alone."""
    folder = tmp_path_factory.mktemp("plain")
    write_tagged(folder / "data" / "train.tsv", tiny_sentences(40))
    config = tiny_tuning("tagging", finished.inputs / "teacher", folder / "data", epochs=1)
    return folder / "run", finetune(config, str(folder / "run"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp("texts") / "texts.csv")


# At the rate of `tiny_tuning` texts are a toss-up: many a seed tells but two of the three.
SURELY = {
    "optimizer__learning_rate": 5e-3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture(scope="module")
def classified(finished, texts, tmp_path_factory):
    """Returns (workdir, summary) of an exBERT tuned on texts; tests change nothing there."""
    workdir = tmp_path_factory.mktemp("classified") / "run"
    config = tiny_tuning("classification", finished.workdir / "teacher", texts, epochs=8, **SURELY)
    return workdir, finetune(config, str(workdir))


def test_a_student_learns_to_tag_and_every_seed_is_scored(tuned):
    workdir, summary = tuned
    assert set(summary["seeds"]) == {"0", "1"}
    assert summary["labels"] == ["O", "B-Vowel", "I-Vowel"]
    assert summary["means"]["test/f1"]["mean"] > 0.25
    assert summary["means"]["test/f1"]["half"] is not None
    for seed in summary["seeds"].values():
        assert not seed["failed"]
        assert set(seed["test"]) >= {"f1", "precision", "recall", "types", "paper_metric"}
        best = np.array(summary["validation_by_epoch"])[seed["best_epoch"] - 1]
        assert seed["validation"]["f1"] in best.tolist()
    assert json.loads((workdir / "summary.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(summary)
    )
    assert (workdir / "tuning.png").stat().st_size > 5_000


def test_predictions_are_aligned_with_the_original_words(tuned, data):
    workdir, summary = tuned
    text = (workdir / "predictions" / "test-seed-0.tsv").read_text(encoding="utf-8")
    gold = (data / "test.tsv").read_text(encoding="utf-8")
    columns = [line.rsplit("\t", 1)[0] for line in text.strip().split("\n")]
    assert columns == gold.strip().split("\n")


def test_the_saved_model_gives_the_scores_of_the_best_seed(tuned, data):
    workdir, summary = tuned
    sizes, params, task = pretrained.load_task_model(str(workdir / "model"))
    assert task == huggingface.Task("tagging", ("O", "B-Vowel", "I-Vowel"))
    assert set(params) == {"base", "extension", "classifier"}
    net = TaskNet("tagging", ExBert(sizes, jnp.float32), Classifier(sizes.base, 3, jnp.float32))
    examples, _ = read_tagged(str(data))
    rows = TASKS["tagging"].rows(
        examples["test"], load_tokenizer(workdir / "model"), task.labels, max_length=32
    )
    predict = make_predictor(net, batch_size=8, max_length=32)
    (logits,) = predict(jax.tree.map(lambda x: x[None], params), rows)
    predicted = name_labels(rows, logits, task.labels)
    best = max(summary["seeds"].values(), key=lambda seed: seed["validation"]["f1"])
    assert TASKS["tagging"].quick_score(examples["test"], predicted) == best["test"]["f1"]


def test_the_log_has_each_seeds_score_by_epoch_and_the_time_cost(tuned):
    workdir, summary = tuned
    lines = read_metrics(workdir / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == [*range(1, EPOCHS + 1)]
    scores = [[line["validation/f1/seed-0"], line["validation/f1/seed-1"]] for line in lines]
    assert scores == summary["validation_by_epoch"]
    assert summary["time_cost"]["train/seconds"] == lines[-1]["train/seconds"] > 0


def test_a_finished_run_is_not_run_again(tuned, finished, data, tmp_path, monkeypatch):
    workdir, summary = tuned
    monkeypatch.setattr(room, "prepare_examples", None)
    copy = shutil.copytree(workdir, tmp_path / "run")
    (copy / "tuning.png").unlink()  # as where a kill comes before the last picture
    config = tiny_tuning(
        "tagging", finished.workdir / "student", data, num_seeds=2, epochs=EPOCHS, **CONSTANT
    )
    assert finetune(config, str(copy)) == json.loads(json.dumps(summary))
    assert (copy / "tuning.png").stat().st_size > 5_000


def end_of(workdir):
    """Returns all that a run leaves but times: files, metrics, the arrays of its checkpoint."""
    lines = [
        {name: value for name, value in line.items() if name not in ("time", *TIME_COSTS)}
        for line in read_metrics(workdir / "metrics.jsonl")
    ]
    (step,) = (int(path.stem) for path in (workdir / "checkpoints" / "checksums").iterdir())
    with Checkpointer(workdir / "checkpoints", keep=1) as checkpoints:
        arrays = {
            path: (array.dtype, array.shape, array.tobytes())
            for path, array in checkpoints.read(step).items()
            if path != "costs"
        }
    files = {
        path.name: path.read_bytes()
        for folder in ("model", "predictions")
        for path in (workdir / folder).iterdir()
    }
    return {"metrics": lines, "step": step} | arrays | files


def stop_at(monkeypatch, number):
    """Has training end with an error before the step of this number, counted from 0."""
    run_step, count = loop.run_step, iter(range(10_000))

    def run_or_stop(*arguments):
        if next(count) == number:
            raise KeyboardInterrupt
        return run_step(*arguments)

    monkeypatch.setattr(loop, "run_step", run_or_stop)


def stopped_and_resumed(config, workdir, step):
    """Returns the summary of a run that was stopped in this step, and given again."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        stop_at(monkeypatch, step)
        with pytest.raises(KeyboardInterrupt):
            finetune(config, str(workdir))
    return finetune(config, str(workdir))


def test_a_run_killed_within_an_epoch_goes_on_from_its_step_and_ends_in_the_same_bits(
    tuned, finished, data, tmp_path, caplog
):
    caplog.set_level("INFO", logger="edad_jax")
    config = tiny_tuning(
        "tagging",
        finished.workdir / "student",
        data,
        num_seeds=2,
        epochs=EPOCHS,
        checkpoint__every_steps=SAVE_EVERY,
        **CONSTANT,
    )
    summary = stopped_and_resumed(config, tmp_path / "run", 10)  # 6 steps an epoch
    assert "Going on from the checkpoint of step 8 of 18." in caplog.text
    assert summary["validation_by_epoch"] == tuned[1]["validation_by_epoch"]
    assert summary["seeds"] == tuned[1]["seeds"]
    assert 0 < read_metrics(tmp_path / "run" / "metrics.jsonl")[1]["train/seconds"]
    assert end_of(tmp_path / "run") == end_of(tuned[0])


def test_checkpoints_that_hold_whole_epochs_are_gone_on_from_and_sigterm_saves_the_step(
    tuned, finished, data, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="edad_jax")
    save, run_step = Checkpointer.save, loop.run_step
    config = tiny_tuning(
        "tagging",
        finished.workdir / "student",
        data,
        num_seeds=2,
        epochs=EPOCHS,
        checkpoint__every_steps=6,
        **CONSTANT,
    )
    with monkeypatch.context() as before:  # as it was: the state alone, the epoch as its number
        before.setattr(Checkpointer, "save", lambda self, step, it: save(self, step // 6, it.run))
        stop_at(before, 14)
        with pytest.raises(KeyboardInterrupt):
            finetune(config, str(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run/checkpoints/checksums").glob("*.json")] == [
        "2.json"
    ]
    count = iter(range(100))

    def run_and_signal(*arguments):
        if next(count) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return run_step(*arguments)

    monkeypatch.setattr(loop, "run_step", run_and_signal)
    with pytest.raises(SystemExit, match="stopped by a signal at step 15 of 18; the checkpoint is"):
        finetune(config, str(tmp_path / "run"))
    assert "Going on from the checkpoint of step 12 of 18." in caplog.text
    finetune(config, str(tmp_path / "run"))
    assert next(count) == 6  # no step twice
    ours, expected = end_of(tmp_path / "run"), end_of(tuned[0])
    assert ours.pop("README.md") != expected.pop("README.md")  # it tells how often was saved
    assert ours == expected


def test_a_run_goes_on_with_its_own_examples_only_and_in_one_program(
    tuned, finished, tmp_path, data
):
    workdir = shutil.copytree(tuned[0], tmp_path / "run")
    (workdir / "summary.json").unlink()
    recorded = json.loads((workdir / "config.json").read_text())
    other = write_tagging(tmp_path / "words", train=50)
    (workdir / "config.json").write_text(json.dumps(recorded | {"data": str(other)}))
    config = tiny_tuning(
        "tagging", finished.workdir / "student", other, num_seeds=2, epochs=EPOCHS, **CONSTANT
    )
    with pytest.raises(ValueError, match="got other examples, .*than its run began with"):
        finetune(config, str(workdir))
    with hold_workdir(workdir):
        with pytest.raises(ValueError, match="another program is at work there"):
            finetune(config, str(workdir))


def test_seeds_at_once_give_what_seeds_in_turn_give(tuned, finished, data, tmp_path):
    config = tiny_tuning(
        "tagging",
        finished.workdir / "student",
        data,
        num_seeds=2,
        epochs=1,
        over_seeds="vmap",
        checkpoint__every_steps=SAVE_EVERY,
        **CONSTANT,
    )
    finetune(config, str(tmp_path / "run"))
    stopped_and_resumed(config, tmp_path / "stopped", 5)
    assert end_of(tmp_path / "stopped") == end_of(tmp_path / "run")
    together, in_turn = (
        read_metrics(run / "metrics.jsonl")[0] for run in (tmp_path / "run", tuned[0])
    )
    losses = [together[f"loss/seed-{seed}"] for seed in (0, 1)]
    assert losses == pytest.approx([in_turn[f"loss/seed-{seed}"] for seed in (0, 1)], rel=1e-3)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_seeds_that_do_not_fit_the_memory_at_once_take_turns(
    tuned, finished, data, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(room, "choose_over_seeds", lambda how: "vmap")  # as on a GPU
    compile_step = Parallel.compile

    def compiled(self, step, **options):
        run = compile_step(self, step, **options)

        def limited(state, batch):
            if len(state.seeds) > 1:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
            return run(state, batch)

        return limited

    monkeypatch.setattr(Parallel, "compile", compiled)
    config = tiny_tuning(
        "tagging", finished.workdir / "student", data, num_seeds=2, epochs=EPOCHS, **CONSTANT
    )
    summary = finetune(config, str(tmp_path / "run"))
    assert "2 seeds at once do not fit the device's memory" in caplog.text
    assert summary["seeds"] == tuned[1]["seeds"]


def break_seeds(monkeypatch, *broken):
    """Has the classifiers of some seeds begin with weights that are not finite."""
    draw = init.draw

    def draw_or_break(shapes, seed, *, deviation):
        return draw(shapes, seed, deviation=np.nan if seed[0] in broken else deviation)

    monkeypatch.setattr(init, "draw", draw_or_break)


def test_a_seed_that_fails_is_named_and_the_others_count(
    finished, data, tmp_path, monkeypatch, capsys, figures
):
    break_seeds(monkeypatch, 1)
    config = tiny_tuning(
        "tagging", finished.workdir / "student", data, num_seeds=3, epochs=2, **CONSTANT
    )
    summary = finetune(config, str(tmp_path / "run"))
    assert [seed["failed"] for seed in summary["seeds"].values()] == [False, True, False]
    assert summary["means"]["test/f1"]["count"] == 2
    assert "failed: the loss was not finite" in capsys.readouterr().out
    assert not (tmp_path / "run" / "predictions" / "test-seed-1.tsv").exists()
    curves = [list(line.get_ydata()) for line in figures[-1].axes[0].lines]
    sound = np.array(summary["validation_by_epoch"])[:, [0, 2]]
    np.testing.assert_allclose(curves, [*sound.T, sound.mean(axis=1)])


def test_the_table_of_types_says_which_seed_it_is_of(tuned):
    _, summary = tuned
    assert "\ntest split, seed 0:\n\n| type " in describe(summary)
    failed = {"0": {"failed": True}, "1": summary["seeds"]["1"]}
    assert "\ntest split, seed 1:\n\n| type " in describe(summary | {"seeds": failed})


def test_no_seed_with_a_finite_loss_is_an_error(finished, data, tmp_path, monkeypatch):
    break_seeds(monkeypatch, 0)
    config = tiny_tuning("tagging", finished.workdir / "student", data, **CONSTANT)
    with pytest.raises(FloatingPointError, match="epoch 1: no seed's loss is finite"):
        finetune(config, str(tmp_path / "run"))


def test_a_plain_bert_without_validation_and_test_is_scored_on_a_part_of_train(plain):
    _, summary = plain
    assert summary["examples"] == {"train": 36, "validation": 4}
    assert "validation/f1" in summary["means"] and "test/f1" not in summary["means"]
    assert any("no validation split" in line for line in summary["notes"]["reader"])


def test_a_label_unseen_in_training_is_scored_as_missed(finished, tmp_path):
    for split in ("train", "validation"):
        write_tagged(tmp_path / "data" / f"{split}.tsv", tiny_sentences(16))
    (tmp_path / "data" / "test.tsv").write_text(
        "amygdala\tB-New\nof\tO\nis\tB-Vowel\n", encoding="utf-8"
    )
    config = tiny_tuning("tagging", finished.inputs / "teacher", tmp_path / "data")
    prepared = prepare_examples(config, load_tokenizer(finished.inputs / "teacher"))
    assert "B-New" not in prepared.labels
    assert any("unseen in training" in line for line in prepared.notes["reader"])
    examples, rows = prepared.examples["test"], prepared.rows["test"]
    logits = [np.eye(3)[labels] for labels in rows.labels]  # the best that a net could say
    predicted = prepared.task.decode(examples, rows, logits, prepared.labels)
    scores = prepared.task.score(examples, predicted, rows, prepared.labels)
    assert scores["types"]["New"] == {"f1": 0, "precision": 0, "recall": 0, "support": 1}


def test_labels_that_only_the_chosen_sentences_lack_are_named(finished, tmp_path):
    (tmp_path / "data").mkdir()
    for split, count in (("train", 10), ("devel", 2)):
        lines = (f"cell\tB-T{number}\nof\tO\n" for number in range(count))
        (tmp_path / "data" / f"{split}.tsv").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = load_tokenizer(finished.inputs / "teacher")
    config = tiny_tuning("tagging", finished.inputs / "teacher", tmp_path / "data")
    whole = prepare_examples(config, tokenizer)
    assert len(whole.labels) == 11 and "unseen" not in " ".join(whole.notes["reader"])
    config.max_train = 3
    few = prepare_examples(config, tokenizer)
    [note] = [line for line in few.notes["reader"] if "unseen" in line]
    assert "7 x label unseen in training, since config.max_train=3 left it out" in note
    lacking = [label for label in whole.labels if label not in few.labels]
    assert note.endswith(f"({', '.join(lacking)})") and len(lacking) == 7


def test_the_seed_of_the_split_is_used_for_sentences_too(finished, tmp_path):
    write_tagged(tmp_path / "data" / "train.tsv", tiny_sentences(40))
    tokenizer = load_tokenizer(finished.inputs / "teacher")
    config = tiny_tuning("tagging", finished.inputs / "teacher", tmp_path / "data")
    one = prepare_examples(config, tokenizer).examples["validation"]
    config.split_seed = 1
    assert prepare_examples(config, tokenizer).examples["validation"] != one


def test_texts_are_classified_and_the_confusion_is_drawn(classified):
    workdir, summary = classified
    assert summary["examples"] == {"train": 72, "validation": 9, "test": 9}
    scores = summary["seeds"]["0"]["test"]
    assert np.sum(scores["confusion"]) == 9
    assert scores["accuracy"] > 0.7  # two of the three classes: 0.67
    assert (workdir / "confusion.png").stat().st_size > 5_000
    _, params, task = pretrained.load_task_model(str(workdir / "model"))
    assert task == huggingface.Task("classification", ("high", "low", "mid")) and "pooler" in params


def test_a_student_learns_from_a_teacher_with_another_vocabulary(finished, plain, tuned, tmp_path):
    teacher = tuned[0] / "model"  # an exBERT: its vocabulary has more words than the plain one's
    alone, summary = plain
    config = tiny_tuning(
        "tagging",
        finished.inputs / "teacher",
        alone.parent / "data",
        epochs=1,
        teacher=str(teacher),
        soft_weight=1.0,
        temperature=2.0,
    )
    taught = finetune(config, str(tmp_path / "taught"))
    assert taught["teacher"] == str(teacher) and summary["teacher"] == ""
    losses = [
        read_metrics(workdir / "metrics.jsonl")[0]["loss/seed-0"]
        for workdir in (tmp_path / "taught", alone)
    ]
    assert losses[0] > 0 and losses[0] != losses[1]


def test_soft_labels_alone_bring_a_student_to_what_its_teacher_says(
    finished, texts, classified, tmp_path
):
    workdir, _ = classified
    sizes, params, task = pretrained.load_task_model(str(workdir / "model"))
    # The same teacher, whose labels stand in another order: what it says of a text is the same.
    params["classifier"] = jax.tree.map(lambda x: x[..., ::-1], params["classifier"])
    teacher = huggingface.save_model(
        tmp_path / "teacher",
        params,
        sizes,
        workdir / "model",
        card=huggingface.ModelCard(title="teacher", summary="", data={}, settings={}, measured={}),
        task=huggingface.Task(task.kind, task.labels[::-1]),
    )
    # The labels to train on are wrong; those to score by are the teacher's, right or wrong.
    wrong = dict(zip(task.labels, (*task.labels[1:], task.labels[0]), strict=True))
    train = read_labelled(str(texts))[0]["train"]
    write_texts(tmp_path / "data" / "train.tsv", [(each.text, wrong[each.label]) for each in train])
    for split in ("validation", "test"):
        path = workdir / "predictions" / f"{split}-seed-0.tsv"
        with open(path, newline="", encoding="utf-8") as file:
            said = [(row["text"], row["predicted"]) for row in csv.DictReader(file, delimiter="\t")]
        write_texts(tmp_path / "data" / f"{split}.tsv", said)

    config = tiny_tuning(
        "classification",
        finished.inputs / "teacher",
        tmp_path / "data",
        epochs=16,
        teacher=str(teacher),
        soft_weight=1.0,
        **SURELY,
    )
    # After the last epoch, not the best: what is learned, and not what came by once.
    taught = finetune(config, str(tmp_path / "run"))["validation_by_epoch"][-1][0]
    # By the labels themselves it is near 0, by the teacher's in its own order a third.
    assert taught > 0.7


def write_texts(path, rows):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([("text", "label"), *rows])


def test_a_teacher_of_other_labels_is_an_error(finished, tuned, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.tsv").write_text("cell\tB-Other\nof\tO\n\n" * 9, encoding="utf-8")
    config = tiny_tuning(
        "tagging", finished.inputs / "teacher", tmp_path / "data", teacher=str(tuned[0] / "model")
    )
    with pytest.raises(ValueError, match="fine-tune it on the same data"):
        finetune(config, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "parsing"}, "config.task='parsing' is not one of"),
        ({"model": ""}, "config.model is empty"),
        ({"data": ""}, "config.data is empty"),
        ({"num_seeds": 0}, "config.num_seeds=0"),
        ({"max_length": 4}, "config.max_length=4"),
        ({"max_length": 64}, "only 40 positions"),
        ({"soft_weight": 1.5, "teacher": "lab/bert"}, "a weight between 0 and 1"),
        ({"temperature": 0.0, "teacher": "lab/bert"}, "a temperature above 0"),
        ({"soft_weight": 0.5}, "read with a teacher only, and got none"),
        ({"over_seeds": "pmap"}, "config.over_seeds='pmap' is not one of"),
        ({"dtype": "float16"}, "config.dtype='float16'"),
    ],
)
def test_settings_that_cannot_be_used_are_named(finished, data, tmp_path, changes, message):
    config = tiny_tuning("tagging", finished.workdir / "student", data)
    config.update(changes)
    with pytest.raises(ValueError, match=message):
        finetune(config, str(tmp_path / "run"))


def test_a_run_without_a_folder_is_called_by_its_model_and_its_data(data):
    assert default_workdir(tiny_tuning("tagging", "runs/pmc/student/", data)) == (
        "runs/student-words"
    )
    assert default_workdir(tiny_tuning("tagging", "lab/bert", "lab/reviews")) == "runs/bert-reviews"
    with pytest.raises(ValueError, match="config.data is empty"):
        default_workdir(tiny_tuning("tagging", "lab/bert", ""))


def test_the_command_names_its_folder_and_says_what_is_wrong_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    words = command(
        f"--config={ROOT}/configs/ner.py",
        "--config.model=./none",
        "--config.data=empty",
        script="finetune.py",
    )
    done = subprocess.run(
        words, env=environment(), cwd=tmp_path, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 1 and done.stdout == "--workdir=runs/none-empty\n"
    assert (tmp_path / "runs" / "none-empty" / "config.json").is_file()
    assert done.stderr.strip().splitlines()[-1].startswith("ValueError: got ")
    assert "--config.model=/a/local/folder" in done.stderr
