# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning, from a model and labelled examples to scores, top to bottom."""

import json
import logging
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from tqdm import tqdm

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.models.precision import resolve_precision
from edad_jax.tasks import rows as task_rows
from edad_jax.tasks import step as task_step
from edad_jax.tasks.prediction import make_predictor
from edad_jax.tasks.result import average, describe, leave_outcome
from edad_jax.tasks.setup import (
    ask_teacher,
    build_net,
    check_settings,
    prepare_examples,
    run_seeds,
)
from edad_jax.training.checkpoint import Checkpointer
from edad_jax.training.metrics import MetricsWriter, read_metrics
from edad_jax.training.optimizer import read_optimizer
from edad_jax.training.parallel import Parallel
from edad_jax.training.progress import Stopwatch
from edad_jax.training.workdir import open_workdir

LOG = logging.getLogger(__name__)
_NO_MEMORY = "RESOURCE_EXHAUSTED"  # XLA's word


def finetune(config: ConfigDict, workdir: str) -> dict:
    """Returns the summary of a run: a model and labelled examples -> scores of every seed.

    The epoch that does best on the development split is kept, for each seed; the test split is
    scored once, with it. A finished run is not run again: its summary is returned. A seed whose
    loss stops being finite is reported and left out of the means; the others go on.

    Raises:
      ValueError: settings, examples or models that cannot be used; says which option to change.
      FloatingPointError: no seed's loss is finite any more.
    """
    check_settings(config)
    workdir = open_workdir(
        workdir, config.to_dict() | {"dtype": resolve_precision(config.dtype).name}
    )
    if (workdir / "summary.json").exists():
        LOG.info("%s is finished; its scores stand in summary.json.", workdir)
        return json.loads((workdir / "summary.json").read_text(encoding="utf-8"))

    tokenizer = load_tokenizer(config.model, option="--config.model=/a/local/folder")
    prepared = prepare_examples(config, tokenizer)
    net, params = build_net(config, prepared, len(tokenizer))
    if config.teacher:
        prepared.rows["train"] = ask_teacher(config, prepared)
    predict = make_predictor(net, batch_size=config.batch_size, max_length=config.max_length)
    over = _over_seeds(config)
    try:
        trained = _train(config, workdir, prepared, net, params, predict, over)
    except RuntimeError as error:  # jax has no class of its own for it
        if _NO_MEMORY not in str(error) or config.over_seeds != "auto" or over == "loop":
            raise
        LOG.warning(
            "%d seeds at once do not fit the device's memory: they take turns.", config.seeds
        )
        trained = _train(config, workdir, prepared, net, params, predict, "loop")
    predictions = {
        split: _decode(prepared, split, predict, trained.best)
        for split in ("devel", "test")
        if split in prepared.examples
    }
    summary = _summarise(config, prepared, trained, predictions)
    leave_outcome(
        config,
        workdir,
        prepared.task,
        prepared.examples,
        predictions,
        summary,
        _ungroup(trained.best),
        net.encoder.config,
    )
    print(describe(summary), flush=True)
    return summary


def default_workdir(config: ConfigDict) -> str:
    """Returns runs/MODEL-DATA, where a run goes that is given no folder.

    Raises:
      ValueError: settings that cannot be used, such as no model; says which option to change.
    """
    check_settings(config)
    names = (Path(name).expanduser().absolute().name for name in (config.model, config.data))
    return str(Path("runs", "-".join(names)))


class _Trained(NamedTuple):
    best: list[dict]  # parameters of each seed's best epoch, by group, seeds in front
    devel: list[list[float]]  # headline on the development split, by epoch and seed
    failed: np.ndarray  # bool [s]
    costs: dict[str, float]


def _train(config, workdir, prepared, net, params, predict, over):
    parallel = Parallel(config.parallel.engine)
    parallel.check_batch_size(config.batch_size, 1)
    seeds = run_seeds(config)
    groups = task_step.group_seeds(len(seeds), over)
    train_rows = prepared.rows["train"]
    steps_per_epoch = task_rows.count_batches(train_rows, config.batch_size)
    total_steps = config.epochs * steps_per_epoch
    settings = task_step.TuningSettings(
        optimizer=make_optimizer(config.optimizer, total_steps),
        temperature=config.temperature,
        soft_weight=config.soft_weight if config.teacher else 0.0,
    )
    step = parallel.compile(
        task_step.make_tuning_step(net, settings), replicated_arguments=1, donate=True
    )

    def begin(group):
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *params[group])
        state = task_step.begin_tuning(stacked, seeds[group], settings)
        return parallel.replicate({"state": state, "best": stacked})

    begun = [begin(group) for group in groups]  # one after the other: each is copied on its way
    carried = {
        "states": [each.pop("state") for each in begun],
        "best": [each.pop("best") for each in begun],
    } | parallel.replicate(
        {
            "best_score": np.full(len(seeds), -1.0, np.float32),
            "failed": np.zeros(len(seeds), bool),
        }
    )
    LOG.info(
        "%s: %d seed(s) by %s, %d epochs of %d steps of %d rows, products in %s",
        *(
            config.task,
            len(seeds),
            over,
            config.epochs,
            steps_per_epoch,
            config.batch_size,
        ),
        resolve_precision(config.dtype).name,
    )
    with Checkpointer(workdir / "checkpoints", keep=1) as checkpoints:
        restored = checkpoints.restore(carried)
        first_epoch = 0
        if restored is not None:
            first_epoch, carried = restored
            LOG.info("Going on after epoch %d.", first_epoch)
        with (
            MetricsWriter(workdir, resume_step=first_epoch * steps_per_epoch or None) as writer,
            tqdm(
                total=total_steps,
                initial=first_epoch * steps_per_epoch,
                unit="step",
                desc=config.task,
                disable=not config.progress,
            ) as bar,
        ):
            watch = Stopwatch(writer.last_values)
            costs = watch.read()
            compiled = set()
            saved_at = time.perf_counter()
            for epoch in range(first_epoch, config.epochs):
                watch.restart()
                losses = []
                for batch in task_rows.epoch_batches(
                    train_rows,
                    batch_size=config.batch_size,
                    max_length=config.max_length,
                    seeds=seeds,
                    epoch=epoch,
                ):
                    is_new = batch.ids_bt.shape not in compiled
                    if is_new:  # a step of a new length compiles first, which is no time cost
                        compiled.add(batch.ids_bt.shape)
                        jax.block_until_ready(losses)
                        watch.read()
                    losses.append([])
                    for number, group in enumerate(groups):
                        mine = jax.tree.map(lambda x, group=group: x[:, group], batch)
                        carried["states"][number], metrics = step(
                            carried["states"][number], parallel.shard_batch(mine)
                        )
                        losses[-1].append(metrics["loss"])
                        if len(groups) > 1:  # else all run at once, each with its temporaries
                            jax.block_until_ready(metrics)
                    if is_new:
                        jax.block_until_ready(losses)
                        watch.restart()
                    # One step ahead of the device, no more: the bar would run away, and stop.
                    jax.block_until_ready(losses[-2:-1])
                    bar.update()
                losses = np.stack([np.concatenate(each) for each in jax.device_get(losses)])
                costs = watch.read()

                failed = np.asarray(carried["failed"]) | ~np.isfinite(losses).all(axis=0)
                if failed.all():
                    raise FloatingPointError(
                        f"epoch {epoch + 1}: no seed's loss is finite; try a smaller "
                        "--config.optimizer.learning_rate or --config.dtype=float32 in a new "
                        "--workdir"
                    )
                scores = [
                    prepared.task.quick_score(prepared.examples["devel"], each)
                    for each in _decode(
                        prepared, "devel", predict, [state.params for state in carried["states"]]
                    )
                ]
                carried = _keep_best(carried, groups, np.array(scores, np.float32), failed)
                writer.write(
                    (epoch + 1) * steps_per_epoch,
                    {"epoch": epoch + 1}
                    | costs
                    | {
                        f"loss/seed-{seed}": loss
                        for seed, loss in zip(seeds, losses.mean(axis=0), strict=True)
                    }
                    | {
                        f"devel/{prepared.task.headline}/seed-{seed}": score
                        for seed, score in zip(seeds, scores, strict=True)
                    },
                )
                bar.set_postfix(
                    loss=f"{np.nanmean(losses[-50:]):.3g}",
                    devel=f"{np.mean(np.array(scores)[~failed]):.4f}",
                )
                minutes = (time.perf_counter() - saved_at) / 60
                if 0 < config.checkpoint.every_minutes <= minutes and epoch + 1 < config.epochs:
                    checkpoints.save(epoch + 1, carried)
                    saved_at = time.perf_counter()
    history = [
        [line[f"devel/{prepared.task.headline}/seed-{seed}"] for seed in seeds]
        for line in read_metrics(workdir / "metrics.jsonl")
    ]
    return _Trained(
        jax.device_get(carried["best"]), history, np.asarray(carried["failed"]), dict(costs)
    )


def make_optimizer(section: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """Returns the optimiser of a run of so many steps."""
    settings = read_optimizer(section)
    return settings.build(settings.learning_rate(section.learning_rate, total_steps))


def _summarise(config, prepared, trained, predictions):
    """Returns all figures: every seed on the development split, and once on the test split."""
    devel = np.array(trained.devel)  # [epochs, s]
    seeds = {}
    for number, seed in enumerate(run_seeds(config)):
        seeds[str(seed)] = {"failed": bool(trained.failed[number])}
        if trained.failed[number]:
            continue
        seeds[str(seed)]["best_epoch"] = int(devel[:, number].argmax()) + 1
        for split, each in predictions.items():
            seeds[str(seed)][split] = prepared.task.score(
                prepared.examples[split], each[number], prepared.rows[split], prepared.labels
            )
    return {
        "task": config.task,
        "model": config.model,
        "teacher": config.teacher,
        "data": Path(config.data).name,
        "headline": prepared.task.headline,
        "labels": list(prepared.labels),
        "examples": {split: len(each) for split, each in prepared.examples.items()},
        "notes": prepared.notes,
        "time_cost": trained.costs,
        "epochs": config.epochs,
        "devel_by_epoch": trained.devel,
        "seeds": seeds,
        "means": average(seeds),
    }


def _decode(prepared, split, predict, grouped):
    """Returns what each seed predicts of a split's examples, from parameters by group."""
    examples, rows = prepared.examples[split], prepared.rows[split]
    return [
        prepared.task.decode(examples, rows, logits, prepared.labels)
        for params in grouped
        for logits in predict(params, rows)
    ]


def _keep_best(carried, groups, scores, failed):
    is_better = (scores > np.asarray(carried["best_score"])) & ~failed
    best = list(carried["best"])
    for number, group in enumerate(groups):
        mine, params = is_better[group], carried["states"][number].params
        if mine.all():  # of one seed: a copy and no third version of it
            best[number] = carried["best"][number] = None
            best[number] = jax.tree.map(jnp.copy, params)
        elif mine.any():

            def choose(new, old, mine=mine):
                return jnp.where(mine.reshape(-1, *[1] * (new.ndim - 1)), new, old)

            best[number] = jax.tree.map(choose, params, best[number])
    return carried | {
        "best": best,
        "best_score": jnp.where(is_better, scores, carried["best_score"]),
        "failed": jnp.asarray(failed),
    }


def _ungroup(grouped):
    """Returns one tree with all seeds in front."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *grouped)


def _over_seeds(config):
    """Returns how the seeds are gone through: all at once on devices, if their memory allows."""
    if config.over_seeds != "auto":
        return config.over_seeds
    return "loop" if jax.default_backend() == "cpu" else "vmap"
