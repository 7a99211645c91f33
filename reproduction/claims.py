# SPDX-License-Identifier: Apache-2.0
"""What the project claims, each as a difference of two ways over paired training runs.

A pair has one seed: the same rows in the same order, the same masks, starts by the same rule (the
student of two stages takes layers of the adapted teacher, that of one pass of the teacher before).
Models are compared by a linear tagger on their frozen features (`edad_jax.tasks.probe`), which adds
no noise of its own. "MLM alone" is the student without a teacher, with as many model FLOPs as the
single pass: so with more updates.
"""

import dataclasses
import importlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from benchmarks.flops import step_flops
from edad_jax.distillation.nets import extension_config, student_config
from edad_jax.distillation.phases import WHOLE, Phase
from edad_jax.models.config import BertConfig, ExBertConfig
from edad_jax.models.config_json import bert_config
from edad_jax.models.hf_files import local_folder, read_model_json
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table
from edad_jax.tasks.result import show_difference
from edad_jax.tasks.scores import mean_interval
from edad_jax.types import Vocabulary
from reproduction.cells import Cell, make_cell, read_summary
from reproduction.edad import DATASETS
from reproduction.edad_trainings import SCALES, read_sizes, student_options
from reproduction.table import Plan, Report, TableRun

NAME, TITLE = "table-claims", "What the project claims, and what was measured"
# Of every run. The small configuration's 1e-3 is for blocks that begin at random.
RECIPE = {
    "small": ("mlm_head_init=frequencies", "optimizer.teacher_learning_rate=3e-4"),
    "paper": (),
}
_ALONE = Phase(teacher_learns=False, imitates=False)


class Way(NamedTuple):
    """A way to a model: its training runs, one after the other, and which net is compared."""

    net: str  # teacher | student; "" for what all begin with
    trainings: tuple[str, ...] = ()  # keys of `_trainings`; the last has the model


WAYS = {
    "start": Way(""),
    "adapted": Way("teacher", ("adaptation",)),
    "adapted, random extension": Way("teacher", ("adaptation-random",)),
    "one pass": Way("student", ("edad",)),
    "two stages": Way("student", ("adaptation", "distillation")),
    "MLM alone": Way("student", ("mlm",)),
}


class Claim(NamedTuple):
    """A difference of two ways, and what the project wants of it."""

    name: str
    way: str
    than: str
    least: float  # points of F1: the goal is a mean above 0 and a lower end of at least this


CLAIMS = (
    Claim("adaptation does not hurt the teacher", "adapted", "start", 0.0),
    Claim("a copied extension beats a random one", "adapted", "adapted, random extension", 0.0),
    Claim("one pass beats two stages", "one pass", "two stages", -0.2),
    Claim("one pass beats MLM alone at equal FLOPs", "one pass", "MLM alone", -0.2),
)


@dataclasses.dataclass(frozen=True)
class ClaimsPlan(Plan):
    """Which cells belong to each way, seed by seed."""

    probes: Mapping[str, Mapping[str, Sequence[Cell]]]  # way -> data set -> cell of each seed
    trainings: Mapping[str, Sequence[Sequence[Cell]]]  # way -> cells of each seed


def plan(run: TableRun) -> ClaimsPlan:
    """Returns the runs behind the claims that --rows names, all by default.

    Raises:
      ValueError: the teacher is not there or no BERT, or --rows names no such claim.
    """
    claims = chosen(run)
    folder = local_folder(run.teacher, option="--teacher=FOLDER")
    sizes = bert_config(read_model_json(folder / "config.json"))
    options = _trainings(run)
    length_alone = _length_alone(run, sizes, options["edad"][1:])
    rows = make_cell(
        "prepare",
        "rows",
        SCALES[run.scale].config,
        f"teacher.checkpoint={run.teacher}",
        f"corpus.files={run.corpus}",
        *run.train,
    )

    def train(name, seed):
        begun, *more = options[name]
        return make_cell(
            "train",
            f"{name}-{seed}",
            SCALES[run.scale].config,
            f"teacher.checkpoint={begun.format(seed=seed)}",
            f"prepared={run.folder}/rows",
            *RECIPE[run.scale],
            *more,
            f"seed={seed}",
            *run.train,
            *([length_alone] if name == "mlm" else []),  # after --train, which may have another
        )

    def probe(model, name, data):
        given = (f"--model={model}", f"--data={run.ner}/{DATASETS[data]}", "--max_length=64")
        return Cell(f"{name}.{data}.probe", ("launch/probe.py", *given, *run.tune))

    trainings, probes, cells = {}, {}, [rows]
    names = dict.fromkeys(way for claim in claims for way in (claim.way, claim.than))
    for seed in range(run.pairs):
        for way in names:
            net, steps = WAYS[way]
            of_seed = [train(step, seed) for step in steps]
            name = f"{steps[-1]}-{seed}" if steps else "start"
            model = f"{run.folder}/{name}/{net}" if steps else run.teacher
            mine = {data: probe(model, name, data) for data in run.datasets}
            trainings.setdefault(way, []).append(of_seed)
            for data, cell in mine.items():
                probes.setdefault(way, {}).setdefault(data, []).append(cell)
            cells += [*of_seed, *mine.values()]
    cells = list({cell.name: cell for cell in cells}.values())
    return ClaimsPlan(NAME, TITLE, cells, probes=probes, trainings=trainings)


def chosen(run: TableRun) -> list[Claim]:
    """Returns the claims that --rows names by the start of their names; all where it is empty.

    Raises:
      ValueError: there is none of a name.
    """
    for given in run.rows:
        if not any(claim.name.startswith(given) for claim in CLAIMS):
            names = ", ".join(repr(claim.name) for claim in CLAIMS)
            raise ValueError(f"got --rows={given}, expected the starts of some of {names}")
    return [claim for claim in CLAIMS if not run.rows or claim.name.startswith(tuple(run.rows))]


def _trainings(run: TableRun) -> dict[str, tuple[str, ...]]:
    """Returns for each training run the teacher that it begins with, and its options."""
    scale = SCALES[run.scale]
    student = student_options(scale, read_sizes([run.teacher]), run.teacher)
    if student:  # it begins with its teacher's layers
        student = (*student, "student.inherit.extension=copy")
    copied = "teacher.extension_init=copy"
    return {
        "adaptation": (run.teacher, "method=adaptation", copied),
        "adaptation-random": (run.teacher, "method=adaptation"),
        "edad": (run.teacher, *student, copied),
        "distillation": (
            f"{run.folder}/adaptation-{{seed}}/teacher",
            "method=distillation",
            *student,
        ),
        "mlm": (
            run.teacher,
            *student,
            copied,
            "alpha=only_adaptation",
            "phases.drop_teacher_below=0.5",  # the teacher gives the start and never runs
        ),
    }


def _length_alone(run: TableRun, sizes: BertConfig, options: Sequence[str]) -> str:
    """Returns the option by which the student alone costs as many FLOPs as the single pass.

    Args:
      run: what the user asked for; --train may change sizes and lengths.
      sizes: of the teacher without extension.
      options: of the single pass.
    """
    config = importlib.import_module(f"configs.{SCALES[run.scale].config}").get_config()
    words = ["claims", *(f"--config.{option}" for option in options), *run.train]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=words)
    values(words)
    added = config.vocabulary.size
    teacher = ExBertConfig(sizes, extension_config(config.teacher.extension), added)
    vocabulary = Vocabulary(sizes.vocab_size, sizes.vocab_size + added, 0, 0, 0)
    batch = {
        "rows": config.batch_size,
        "length": config.rows.max_length,
        "slots": config.masking.max_predictions_per_seq,
    }
    whole, alone = (
        step_flops("edad", teacher, student_config(config.student, vocabulary), **batch, phase=each)
        for each in (WHOLE, _ALONE)
    )
    if config.max_steps:
        return f"max_steps={round(config.max_steps * whole / alone)}"
    return f"epochs={config.epochs * whole / alone:.3f}"


def report(run: TableRun, plan: ClaimsPlan) -> Report:
    """Returns the claims, from the cells."""
    rows = []
    for claim in chosen(run):
        values = {
            way: {data: [_f1(run.folder, cell) for cell in cells] for data, cells in found.items()}
            for way, found in plan.probes.items()
            if way in (claim.way, claim.than)
        }
        for found in values.values():
            of_seeds = zip(*found.values(), strict=True)
            found["average"] = [statistics.fmean(of_seed) for of_seed in of_seeds]
        costs = {way: _cost(run.folder, plan.trainings[way]) for way in values}
        rows.append(_row(claim, values, costs, run))
    teacher = Path(run.teacher).name
    points = [
        {"name": row["name"], "score": row["difference"], "half": row["high"] - row["difference"]}
        for row in rows
    ]
    table = {"scale": run.scale, "teacher": teacher, "rows": rows}
    return Report(
        table,
        _show(rows, run, teacher),
        lambda path: figures.plot_bars(path, points, TITLE, "difference of probed F1 (points)"),
        {"claims.json": [_told(row, run) for row in rows]},
    )


def _told(row: Mapping[str, Any], run: TableRun) -> dict[str, Any]:
    """Returns a row as docs/results/claims.json has it, with the command that made it."""
    command = f"python launch/reproduce.py --table claims --scale {run.scale} --pairs {run.pairs}"
    command += f" --teacher TEACHER --corpus CORPUS --ner NER --datasets {','.join(run.datasets)}"
    told = {name: row[name] for name in ("difference", "low", "high", "pairs", "cost", "reached")}
    by = {"measure": "probe", "data": list(run.datasets)}
    return {"claim": row["name"], **by, **told, "command": command, "goal": True}


def _row(
    claim: Claim, values: Mapping, costs: Mapping[str, float | None], run: TableRun
) -> dict[str, Any]:
    differences = {
        data: [100 * (a - b) for a, b in zip(first, values[claim.than][data], strict=True)]
        for data, first in values[claim.way].items()
    }
    by_data = {data: mean_interval(each)._asdict() for data, each in differences.items()}
    mean, half = by_data["average"]["mean"], by_data["average"]["half"]
    low = mean - (half or 0.0)
    ours, theirs = costs[claim.way], costs[claim.than]
    is_whole = set(run.datasets) >= set(DATASETS)  # the goals are of all of them
    return {
        "name": claim.name,
        "claim": f"{claim.way} against {claim.than}",
        "difference": mean,
        "low": low,
        "high": mean + (half or 0.0),
        "pairs": by_data["average"]["count"],
        "cost": ours / theirs if ours and theirs else None,
        "goal": f"on all three sets a mean above 0, lower end at least {claim.least}",
        "reached": is_whole and half is not None and mean > 0 and low >= claim.least,
        "by_data": by_data,
        "f1": {
            way: {data: 100 * statistics.fmean(each) for data, each in found.items()}
            for way, found in values.items()
        },
    }


def _f1(folder: Path, cell: Cell) -> float:
    return read_summary(folder, cell.name)["probes"][0]["f1"]


def _cost(folder: Path, trainings: Sequence[Sequence[Cell]]) -> float | None:
    """Returns the CPU seconds of a way's training, a mean over the seeds; None: no training."""
    sums = [
        sum(read_summary(folder, cell.name)["time_cost"]["train/cpu_seconds"] for cell in of_seed)
        for of_seed in trainings
    ]
    return statistics.fmean(sums) or None


def _show(rows: Sequence[Mapping[str, Any]], run: TableRun, teacher: str) -> list[str]:
    shown = [
        {
            "claim": row["name"],
            "difference of F1": f"{row['difference']:+.2f}",
            "95% interval": f"{row['low']:+.2f} to {row['high']:+.2f}",
            "pairs": row["pairs"],
            "CPU time, times": "" if row["cost"] is None else f"{row['cost']:.2f}",
            "goal": row["goal"],
            "reached": "yes" if row["reached"] else "no",
        }
        | {
            data: show_difference({name: (value or 0) / 100 for name, value in each.items()})
            for data, each in row["by_data"].items()
            if data != "average"
        }
        for row in rows
    ]
    return [
        f"Entity F1 of a linear tagger on frozen features, in points; teacher {teacher}. A pair is "
        "a training run of each way with one seed; the interval is Student's t over the pairs.",
        "",
        markdown_table(shown, list(shown[0])),
        "",
        f"![{TITLE}]({NAME}.png)",
    ]
