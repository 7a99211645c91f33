# SPDX-License-Identifier: Apache-2.0
"""The loop of fine-tuning: epochs of steps, for groups of seeds that take turns."""

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from tqdm import tqdm

from edad_jax.models.precision import resolve_precision
from edad_jax.tasks.rows import count_batches, epoch_batches
from edad_jax.tasks.setup import Predict, Prepared, run_seeds
from edad_jax.tasks.snapshot import (
    RunState,
    Saver,
    check_rows,
    collect_losses,
    note_beginning,
    restore_snapshot,
)
from edad_jax.tasks.step import (
    TaskNet,
    TuningSettings,
    TuningState,
    begin_tuning,
    group_seeds,
    make_tuning_step,
)
from edad_jax.training.checkpoint import Checkpointer
from edad_jax.training.metrics import FILE_NAME, MetricsWriter, read_metrics
from edad_jax.training.optimizer import read_optimizer
from edad_jax.training.parallel import Parallel
from edad_jax.training.progress import TIME_COSTS, StopSignal, Stopwatch
from edad_jax.types import TaskBatch

LOG = logging.getLogger(__name__)


class Trained(NamedTuple):
    """What training comes to."""

    best: list[dict]  # the parameters after each seed's best epoch, as in RunState
    validation: list[list[float]]  # headline on the validation split, by epoch and seed
    failed_s: np.ndarray  # bool; whether a loss of the seed was not finite
    costs: dict[str, float]  # TIME_COSTS


def train(
    config: ConfigDict,
    workdir: Path,
    prepared: Prepared,
    net: TaskNet,
    params: Sequence[dict],
    predict: Predict,
    *,
    over: str,
) -> Trained:
    """Trains all seeds; goes on after the newest checkpoint of the folder, if there is one.

    `params` are what each seed begins with; `over` is one of OVER_SEEDS. SIGTERM saves a checkpoint
    and raises SystemExit.

    Raises:
      FloatingPointError: no seed's loss is finite any more.
      ValueError: settings, or a checkpoint, that cannot be used.
    """
    seeds, rows = run_seeds(config), prepared.rows["train"]
    groups = group_seeds(len(seeds), over)
    steps_per_epoch = count_batches(rows, config.batch_size)
    total_steps = config.epochs * steps_per_epoch
    soft = ("soft_weight", "temperature") if config.teacher else ()
    settings = TuningSettings(
        make_optimizer(config.optimizer, total_steps), **{name: config[name] for name in soft}
    )
    parallel = Parallel(config.parallel.engine)
    parallel.check_batch_size(config.batch_size, 1)
    step = parallel.compile(make_tuning_step(net, settings), replicated_arguments=1, donate=True)
    state = _begin(params, seeds, groups, settings, parallel)
    batches_of = functools.partial(
        epoch_batches,
        rows,
        batch_size=config.batch_size,
        max_length=config.max_length,
        seeds=seeds,
    )
    check_rows(workdir, prepared.rows)
    headline = f"validation/{prepared.task.headline}"
    LOG.info(
        "%s: %d seed(s) by %s, %d epochs of %d steps of %d rows, products in %s",
        *(config.task, len(seeds), over, config.epochs, steps_per_epoch, config.batch_size),
        resolve_precision(config.dtype).name,
    )
    with (
        Checkpointer(workdir / "checkpoints", keep=config.checkpoint.keep) as checkpoints,
        StopSignal() as stop,
    ):
        done, snapshot = restore_snapshot(checkpoints, state, steps_per_epoch)
        if done:
            LOG.info("Going on from the checkpoint of step %d of %d.", done, total_steps)
        else:
            note_beginning(workdir, over, prepared.rows)
        state, spent = snapshot.run, dict(zip(TIME_COSTS, snapshot.costs.tolist(), strict=True))
        losses = [[loss_s] for loss_s in np.asarray(snapshot.losses_ts)[: done % steps_per_epoch]]
        shown = {"unit": "step", "desc": config.task, "disable": not config.progress}
        with (
            MetricsWriter(workdir, resume_step=done or None) as writer,
            tqdm(total=total_steps, initial=done, **shown) as bar,
        ):
            watch = Stopwatch(spent if any(spent.values()) else writer.last_values)
            costs = watch.read()
            step = _without_compiling(step, watch)
            saver = Saver(config.checkpoint, checkpoints, total_steps, steps_per_epoch, watch, stop)
            while done < total_steps:
                epoch, first = divmod(done, steps_per_epoch)
                watch.restart()
                for batch in batches_of(epoch=epoch, first=first):
                    losses.append(run_step(step, state.tuning, batch, groups, parallel))
                    # One step ahead of the device, no more: the bar would run away, and stop.
                    jax.block_until_ready(losses[-2:-1])
                    bar.update()
                    done += 1
                    if done % steps_per_epoch:
                        saver.save_if_due(done, state, losses, parallel)
                losses_ts, losses = collect_losses(losses), []
                costs = watch.read()
                state = state.replace(failed_s=_find_failed(state.failed_s, losses_ts, epoch))
                scores_s = score_validation(prepared, predict, state)
                state = keep_best(state, scores_s, groups)
                metrics = {"epoch": epoch + 1} | costs
                metrics |= _by_seed("loss", seeds, losses_ts.mean(axis=0))
                metrics |= _by_seed(headline, seeds, scores_s)
                writer.write(done, metrics)
                bar.set_postfix(
                    loss=f"{np.nanmean(losses_ts[-50:]):.3g}",
                    validation=f"{scores_s[~np.asarray(state.failed_s)].mean():.4f}",
                )
                watch.restart()
                saver.save_if_due(done, state, losses, parallel)
        checkpoints.tidy()
    history = read_metrics(workdir / FILE_NAME)  # of earlier parts of the run too
    return Trained(
        best=jax.device_get(state.best),
        validation=[[line[f"{headline}/seed-{seed}"] for seed in seeds] for line in history],
        failed_s=np.asarray(state.failed_s),
        costs=costs,
    )


def make_optimizer(section: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """Returns the optimiser of a run of so many steps."""
    settings = read_optimizer(section)
    return settings.build(settings.learning_rate(section.learning_rate, total_steps))


def run_step(
    step: Callable,
    states: list[TuningState],
    batch: TaskBatch,
    groups: Sequence[slice],
    parallel: Parallel,
) -> list[jax.Array]:
    """Returns the losses of each group, float32 [seeds of the group]; replaces the states."""
    losses = []
    for number, group in enumerate(groups):
        mine = parallel.shard_batch(jax.tree.map(lambda x, group=group: x[:, group], batch))
        states[number], metrics = step(states[number], mine)
        losses.append(metrics["loss"])
        if len(groups) > 1:  # else all run at once, each with its temporaries
            jax.block_until_ready(metrics)
    return losses


def score_validation(prepared: Prepared, predict: Predict, state: RunState) -> np.ndarray:
    """Returns the headline of each seed on the validation split, float64 [s]."""
    grouped = [tuning.params for tuning in state.tuning]
    return np.array(
        [
            prepared.task.quick_score(prepared.examples["validation"], predicted)
            for predicted in prepared.decode("validation", predict, grouped)
        ]
    )


def keep_best(state: RunState, scores_s: np.ndarray, groups: Sequence[slice]) -> RunState:
    """Returns the state after an epoch; seeds that did better than ever keep their parameters."""
    scores_s = scores_s.astype(np.float32)
    is_better_s = (scores_s > np.asarray(state.best_score_s)) & ~np.asarray(state.failed_s)
    for number, group in enumerate(groups):
        mine, params = is_better_s[group], state.tuning[number].params
        if mine.all():  # of one seed: a copy and no third version of it
            state.best[number] = None
            state.best[number] = jax.tree.map(jnp.copy, params)
        elif mine.any():
            choose = functools.partial(_choose_seeds, mine)
            state.best[number] = jax.tree.map(choose, params, state.best[number])
    return state.replace(best_score_s=jnp.where(is_better_s, scores_s, state.best_score_s))


def _begin(
    params: Sequence[dict],
    seeds: Sequence[int],
    groups: Sequence[slice],
    settings: TuningSettings,
    parallel: Parallel,
) -> RunState:
    """Returns the state before the first epoch."""
    state = RunState(
        tuning=[],
        best=[],
        best_score_s=np.full(len(seeds), -1.0, np.float32),
        failed_s=np.zeros(len(seeds), bool),
    )
    state = parallel.replicate(state)
    for group in groups:  # one after the other: each is copied on its way
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *params[group])
        state.tuning.append(parallel.replicate(begin_tuning(stacked, seeds[group], settings)))
        state.best.append(parallel.replicate(stacked))
    return state


def _without_compiling(step: Callable, watch: Stopwatch) -> Callable:
    """Returns the step; the first one with rows of a length, which compiles, is no time cost."""
    compiled = set()

    def run(state: TuningState, batch: TaskBatch) -> tuple[TuningState, dict]:
        if batch.ids_bt.shape in compiled:
            return step(state, batch)
        compiled.add(batch.ids_bt.shape)
        jax.block_until_ready(state)
        with watch.paused():
            return jax.block_until_ready(step(state, batch))

    return run


def _find_failed(failed_s: jax.Array, losses: np.ndarray, epoch: int) -> jax.Array:
    """Returns which seeds have failed, now or before."""
    failed_s = np.asarray(failed_s) | ~np.isfinite(losses).all(axis=0)
    if failed_s.all():
        raise FloatingPointError(
            f"epoch {epoch + 1}: no seed's loss is finite; try a smaller "
            "--config.optimizer.learning_rate or --config.dtype=float32 in a new --workdir"
        )
    return jnp.asarray(failed_s)


def _by_seed(name: str, seeds: Sequence[int], values_s: np.ndarray) -> dict[str, float]:
    """Returns a metric for each seed."""
    return {f"{name}/seed-{seed}": value for seed, value in zip(seeds, values_s, strict=True)}


def _choose_seeds(is_new_s: np.ndarray, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(is_new_s.reshape(-1, *[1] * (new.ndim - 1)), new, old)
