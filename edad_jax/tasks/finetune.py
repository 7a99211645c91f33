# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning, from a model and labelled examples to scores, top to bottom."""

import logging
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.files import read_json
from edad_jax.models.precision import resolve_precision
from edad_jax.report.summary import Summary
from edad_jax.tasks.prediction import ask_teacher, make_predictor
from edad_jax.tasks.preflight import check_run
from edad_jax.tasks.result import describe, draw_pictures, leave_result, summarise
from edad_jax.tasks.setup import build_net, prepare_examples, resolve_settings
from edad_jax.tasks.snapshot import begun_over_seeds
from edad_jax.tasks.step import choose_over_seeds
from edad_jax.tasks.train import Trained, train
from edad_jax.training.workdir import hold_workdir, open_workdir

LOG = logging.getLogger(__name__)
_NO_MEMORY = "RESOURCE_EXHAUSTED"  # XLA's word


def finetune(config: ConfigDict, workdir: str) -> dict:
    """Returns the summary of a run: a model and labelled examples -> scores of every seed.

    The epoch that does best on the validation split is kept, for each seed; the test split is
    scored once, with it. A finished run is not run again: its summary is returned. A seed whose
    loss stops being finite is reported and left out of the means; the others go on.

    Raises:
      ValueError: settings, examples or models that cannot be used; says which option to change.
      FloatingPointError: no seed's loss is finite any more.
    """
    config = resolve_settings(config)
    with hold_workdir(workdir):
        return _run(config, workdir)


def _run(config: ConfigDict, workdir: str) -> dict:
    """Returns what `finetune` does, of settings that have been checked."""
    workdir = open_workdir(
        workdir, config.to_dict() | {"dtype": resolve_precision(config.dtype).name}
    )
    if (workdir / "summary.json").exists():
        LOG.info("%s is finished; its scores stand in summary.json.", workdir)
        summary = read_json(
            workdir / "summary.json", expected="what a finished run left; remove it to run again"
        )
        draw_pictures(workdir, summary)
        return _as_summary(workdir, summary)

    tokenizer = load_tokenizer(config.model, option="--config.model=/a/local/folder")
    encoder = check_run(config, workdir, len(tokenizer))
    prepared = prepare_examples(config, tokenizer)
    net, params = build_net(config, prepared, encoder)
    if config.teacher:
        prepared.rows["train"] = ask_teacher(config, prepared)
    predict = make_predictor(net, batch_size=config.batch_size, max_length=config.max_length)
    trained = _train_in_memory(config, workdir, prepared, net, params, predict)
    predictions = {
        split: prepared.decode(split, predict, trained.best)
        for split in ("validation", "test")
        if split in prepared.examples
    }
    summary = summarise(config, prepared, trained, predictions)
    leave_result(config, workdir, prepared, predictions, summary, trained.best, net.encoder.config)
    print(describe(summary), flush=True)
    return _as_summary(workdir, summary)


def _as_summary(workdir: Path, values: dict) -> Summary:
    pictures = (workdir / name for name in ("tuning.png", "confusion.png"))
    return Summary(values, workdir, describe(values), *pictures)


def default_workdir(config: ConfigDict) -> str:
    """Returns runs/MODEL-DATA, where a run goes that is given no folder.

    Raises:
      ValueError: settings that cannot be used, such as no model; says which option to change.
    """
    config = resolve_settings(config)
    names = (Path(name).expanduser().absolute().name for name in (config.model, config.data))
    return str(Path("runs", "-".join(names)))


def _train_in_memory(config: ConfigDict, workdir: Path, *run: Any) -> Trained:
    """Trains the seeds as config.over_seeds says; where "auto" does not fit, they take turns."""
    over = begun_over_seeds(workdir) or choose_over_seeds(config.over_seeds)
    try:
        return train(config, workdir, *run, over=over)
    except RuntimeError as error:  # jax has no class of its own for it
        may_take_turns = config.over_seeds == "auto" and over != "loop"
        if _NO_MEMORY not in str(error) or not may_take_turns or begun_over_seeds(workdir):
            raise
    # Not within the handler, whose traceback would hold the arrays of the first attempt.
    LOG.warning(
        "%d seeds at once do not fit the device's memory: they take turns.", config.num_seeds
    )
    return train(config, workdir, *run, over="loop")
