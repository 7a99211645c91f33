# SPDX-License-Identifier: Apache-2.0
"""From raw text and labelled sentences to a model in service and its report, top to bottom."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from chain.record import describe_inputs
from chain.run import run_stages
from chain.stages import absolute, make_stages
from chain.story import make_story
from chain.view import View, work_of
from chain.work import stage_work
from edad_jax.distillation.settings import check_settings
from edad_jax.files import write_file, write_json
from edad_jax.report.page import render_page
from edad_jax.tasks.tagging import Tagging
from edad_jax.training.metrics import FILE_NAME as METRICS
from edad_jax.training.metrics import read_metrics
from edad_jax.training.workdir import local_workdir
from planning.report import describe_stages, tell

PAGE = "report.html"
_SENTENCES = 2_000  # to reckon with where the labels are still to be made


def run_pipeline(config: ConfigDict, workdir: str, *, redo: bool = False) -> Path:
    """Returns the page that tells the story of a pipeline, after running what was not done.

    Args:
      config: of configs/pipeline.py.
      workdir: folder for everything; given again, what is done is skipped.
      redo: whether stages whose settings changed run again, with all that reads them.

    Raises:
      ValueError: settings or data that cannot be used, seen before anything runs; or as
        `run_stages`.
    """
    config, workdir = absolute(config), local_workdir(workdir)
    check_settings(config)
    stages = make_stages(config, workdir)
    inputs = describe_inputs(config)
    work = work_of([stage.name for stage in stages], stage_work(config, _count_sentences(config)))
    view = View([stage.title for stage in stages], work)
    run_stages(stages, workdir, inputs, view, redo=redo)
    write_json(workdir / "config.json", config.to_dict())
    story = make_story(config, workdir, stages)
    write_json(workdir / "report.json", story)
    lines = read_metrics(workdir / "train" / METRICS)
    write_file(workdir / PAGE, render_page(story, lines).encode())
    return workdir / PAGE


def plan_pipeline(config: ConfigDict, **words: Any) -> str:
    """Returns what a pipeline would take, as lines to read; nothing is written but a picture.

    Args:
      config: of configs/pipeline.py.
      words: of `planning.report.tell`: picture, config_file and overrides.

    Raises:
      ValueError: as `run_pipeline` before anything runs, and as `planning.plan.make_plan`.
    """
    config = absolute(config)  # its settings are checked by the rehearsal, which has the devices
    names = {stage.name for stage in make_stages(config, Path.cwd())}
    sentences = _count_sentences(config)
    said, plan = tell(config, with_updates=True, **words)
    config.max_steps = plan.updates.count
    work = stage_work(config, sentences)
    work = {name: each for name, each in work.items() if name in names}
    return f"{said}\n{describe_stages(work, plan.updates)}"


def _count_sentences(config):
    """Returns how many sentences the fine-tuning stages learn from, about, in an epoch."""
    if not config.data:
        return config.finetune.max_train or config.labels.sentences or _SENTENCES
    there = len(_read_data(config)["train"])
    return min(there, config.finetune.max_train or there)


def _read_data(config):
    """Returns the labelled sentences by split, read as the fine-tuning stages will read them."""
    section = config.finetune.copy_and_resolve_references()
    with section.unlocked():
        section.data = config.data
    splits, _ = Tagging().read(section)
    return splits
