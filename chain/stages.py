# SPDX-License-Identifier: Apache-2.0
"""The stages of a pipeline: which command each is, and what it reads.

Every stage is a command of launch/ that can be given by hand too. Its flags are what the pipeline's
configuration says otherwise than the command's own, so that a change of settings shows in the flags
of the stages that it concerns, and in no other's.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import edad, ner
from edad_jax.distillation.methods import find_method
from edad_jax.training.workdir import MAY_CHANGE
from reproduction.cells import Cell

ROOT = Path(__file__).resolve().parents[1]
# Sections of a pipeline's configuration that launch/train.py does not have.
OWN = ("data", "labels", "finetune", "finetune_large", "soft_labels", "export", "speed")
# What launch/prepare.py reads of launch/train.py's settings.
_OF_ROWS = ("seed", "corpus", "vocabulary", "rows", "heldout.fraction", "teacher.checkpoint")
NETS = ("base", "teacher", "student")  # that are fine-tuned and compared


class Stage(NamedTuple):
    """A command, what it is for, and which files of the user's it reads."""

    cell: Cell
    title: str
    reads: tuple[str, ...] = ()  # names of `describe_inputs`

    @property
    def name(self) -> str:
        return self.cell.name


def make_stages(config: ConfigDict, workdir: Path) -> list[Stage]:
    """Returns the stages in the order of their work.

    Args:
      config: of the pipeline, with absolute paths.
      workdir: has a folder for each stage.

    Raises:
      ValueError: a task that the pipeline does not know, rows that are made already, no labelled
        data or two kinds of it, a method without a student or without the teacher asked for, or
        rows that are longer than the student's.
    """
    if config.finetune.task != "tagging":
        raise ValueError(
            f"config.finetune.task={config.finetune.task!r}, expected tagging: the pipeline "
            "compares entities. For other tasks run launch/train.py, launch/finetune.py and "
            "launch/export.py by hand"
        )
    if config.prepared:
        raise ValueError(
            f"got config.prepared={config.prepared}, expected none: a pipeline makes its rows "
            "itself, of config.corpus. Leave it out, or run launch/train.py, launch/finetune.py "
            "and launch/export.py by hand"
        )
    if bool(config.data) == bool(config.labels.packages):
        got = "both" if config.data else "neither"
        raise ValueError(
            f"got {got} of config.data and config.labels.packages, expected one: give "
            "--config.data=FOLDER with train, validation and test files of two columns"
        )
    trained = [name for name in config if name not in OWN]
    rows = _cell("prepare", "rows", "rows.stage.json", _changes(config, edad, _OF_ROWS), "--out")
    train = _changes(config, edad, trained, _OF_ROWS[1:2])
    train += _flags({"prepared": str(workdir / "rows")})
    stages = [
        Stage(rows, "vocabulary and rows", ("corpus",)),
        Stage(_cell("train", "train", "summary.json", train), "fused training"),
    ]
    data, data_inputs = config.data, ("data",)
    if config.labels.packages:
        data, data_inputs = str(workdir / "labels"), ()
        words = (f"--packages={','.join(config.labels.packages)}",)
        words += (f"--sentences={config.labels.sentences}", f"--seed={config.seed}")
        labels = Cell("labels", ("-m", "chain.docstring_labels", *words), "--out", "train.tsv")
        stages.insert(0, Stage(labels, "labels by rule", ("packages",)))
    learned = find_method(config.method).trained_nets
    if "student" not in learned:
        raise ValueError(
            f"config.method={config.method!r} trains no student to export, expected edad or "
            "another method that does"
        )
    if config.soft_labels and "teacher" not in learned:
        raise ValueError(
            f"config.soft_labels=True has the student learn from the adapted teacher, and "
            f"config.method={config.method!r} adapts none; leave it out, or choose another method"
        )
    longest = config.student.max_position_embeddings
    lengths = {"finetune.max_length": config.finetune.max_length}
    if config.speed.seconds:
        lengths["speed.length"] = config.speed.length
    for name, length in lengths.items():
        if length > longest:
            raise ValueError(
                f"config.{name}={length}: the student will have "
                f"config.student.max_position_embeddings={longest}, expected no more pieces"
            )
    models = {"base": config.teacher.checkpoint}
    models |= {net: str(workdir / "train" / net) for net in NETS[1:] if net in learned}
    for net in models:
        flags = _tuning(config, net, workdir) | {"model": models[net], "data": data}
        cell = _cell("finetune", f"tune-{net}", "summary.json", _flags(flags), config="ner")
        stages.append(Stage(cell, f"fine-tuning of the {NET_TITLES[net]}", data_inputs))
    stages += [
        Stage(_export(config, workdir, "student", "onnx-int8"), "export to int8, verified"),
        Stage(_export(config, workdir, "student", "onnx"), "export to float32, verified"),
    ]
    if config.speed.seconds:
        stages.append(Stage(_export(config, workdir, "base", "onnx"), "export of the base model"))
        folders = ",".join(str(workdir / name) for name in ("base-onnx", "onnx", "onnx-int8"))
        words = (str(ROOT / "launch" / "benchmark_edge.py"), f"--models={folders}")
        words += (f"--seconds={config.speed.seconds}", f"--turns={config.speed.turns}")
        words += ("--batches=1,32", f"--lengths={config.speed.length}")
        stages.append(Stage(Cell("speed", words, "--out", "edge.json"), "speed and memory"))
    return stages


NET_TITLES = {"base": "base model", "teacher": "adapted teacher", "student": "student"}


def _cell(script: str, name: str, marker: str, flags: list[str], folder="--workdir", config="edad"):
    path = str(ROOT / "launch" / f"{script}.py")
    return Cell(name, (path, f"--config={ROOT / 'configs' / config}.py", *flags), folder, marker)


def _export(config: ConfigDict, workdir: Path, net: str, form: str) -> Cell:
    """Returns the cell of an export; a model that is served is compared first."""
    words = [str(ROOT / "launch" / "export.py"), f"--format={form}"]
    words.append(f"--model={workdir / f'tune-{net}' / 'model'}")
    if net != "student" or not config.export.verify_rows:
        words.append("--no_verify")
    else:
        words.append(f"--rows={config.export.verify_rows}")
        if form == "onnx-int8":
            words.append("--keep_float32=auto")
    if form == "onnx-int8" and config.export.reduce_range:
        words.append("--reduce_range")
    return Cell(form if net == "student" else f"{net}-{form}", tuple(words), "--out", "model.onnx")


def _tuning(config: ConfigDict, net: str, workdir: Path) -> dict[str, Any]:
    """Returns what a fine-tuning's settings have that configs/ner.py has not."""
    section = config.finetune.copy_and_resolve_references()
    if net != "student":
        section.update(config.finetune_large)
    changes = _differing(section, ner.get_config())
    if net == "student" and config.soft_labels:
        changes["teacher"] = str(workdir / "tune-teacher" / "model")
    else:
        changes = {k: v for k, v in changes.items() if k not in ("soft_weight", "temperature")}
    return changes


def _changes(config: ConfigDict, base: Any, names: Collection[str], left_out=()) -> list[str]:
    """Returns flags for what of these sections or keys is otherwise than in a configuration."""
    return _flags(
        {
            key: value
            for key, value in _differing(config, base.get_config()).items()
            if _is_below(key, names) and not _is_below(key, left_out)
        }
    )


def _differing(config: ConfigDict, default: ConfigDict) -> dict[str, Any]:
    """Returns {dotted key: value} of what a configuration has otherwise, or more."""
    ours, theirs = _flat(config), _flat(default)
    return {k: v for k, v in ours.items() if k not in theirs or theirs[k] != v}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _flags(changes: Mapping[str, Any]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in changes.items()]


def _is_below(key: str, names: Collection[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def may_change(word: str) -> bool:
    """Returns whether a flag may be another one when a stage goes on: see `MAY_CHANGE`."""
    return _is_below(word.partition("=")[0].removeprefix("--config."), MAY_CHANGE)


def absolute(config: ConfigDict) -> ConfigDict:
    """Returns a copy in which paths are absolute, since stages run in the project's folder.

    Args:
      config: of a pipeline, or of training.
    """
    config = config.copy_and_resolve_references()
    config.corpus.files = ",".join(_absolute(each) for each in config.corpus.files.split(","))
    for section, key in (
        (config, "data"),
        (config, "prepared"),
        (config.teacher, "checkpoint"),
        (config.vocabulary, "base"),
        (config.corpus, "dataset"),
    ):
        path = section.get(key)  # launch/train.py has no labelled data
        if path and (Path(path).expanduser().exists() or path.startswith(("~", "."))):
            section[key] = _absolute(path)
    return config


def _absolute(path: str) -> str:
    path = path.strip()
    return path if not path or "://" in path else str(Path(path).expanduser().absolute())
