# SPDX-License-Identifier: Apache-2.0
"""The training run, from text to student, top to bottom."""

import contextlib
import logging
from pathlib import Path

import jax
from ml_collections import ConfigDict

from edad_jax.data.batches import make_batch_at
from edad_jax.data.prepare import Prepared, prepare
from edad_jax.distillation.build import (
    Run,
    build_run,
    count_steps,
    largest_batch,
    make_step_at,
)
from edad_jax.distillation.evaluate import make_heldout
from edad_jax.distillation.preflight import check_room, check_run
from edad_jax.distillation.result import leave_result
from edad_jax.distillation.settings import Settings, check_settings, resolve_config
from edad_jax.models import init
from edad_jax.training import batch_size, state
from edad_jax.training.checkpoint import Checkpointer, farewell
from edad_jax.training.metrics import MetricsWriter
from edad_jax.training.mirror import Mirror
from edad_jax.training.parallel import Parallel, any_process, process_0_first, start_processes
from edad_jax.training.progress import Progress, StopSignal
from edad_jax.training.schedules import make_due
from edad_jax.training.workdir import (
    check_remembered,
    has_begun,
    hold_workdir,
    local_workdir,
    open_workdir,
    recorded_batch_size,
)

LOG = logging.getLogger(__name__)
_SHOWN = (  # beside the bar, where the step has them
    *("tokens_per_second", "alpha", "teacher/mlm", "student/mlm"),
    *("distill/attention", "distill/hidden", "distill/soft", "distill/cosine", "distill/value"),
)


def train(config: ConfigDict, workdir: str) -> dict:
    """Returns the summary of a run: text -> vocabulary -> rows -> nets in Hugging Face layout.

    Whatever an earlier call with the same workdir has finished is taken from there. SIGTERM
    saves a checkpoint and raises SystemExit.

    Raises:
      ValueError: settings, text or checkpoints that cannot be used; says which option to change.
      FloatingPointError: a loss is no longer finite; says at which step, and what to try.
    """
    start_processes(
        coordinator=config.parallel.coordinator,
        process_count=config.parallel.process_count,
        process_index=config.parallel.process_index,
    )
    settings = check_settings(config)
    config = resolve_config(config, settings)
    if not config.prepared:  # else building the nets is the next thing to do
        check_run(config, settings, workdir)
    parallel = Parallel(config.parallel.engine)
    batch_size.settle(config, parallel, recorded_batch_size(workdir))  # looks whether it splits
    is_first = jax.process_index() == 0
    with hold_workdir(workdir) if is_first else contextlib.nullcontext():
        return _run(config, settings, parallel, workdir)


def _run(config: ConfigDict, settings: Settings, parallel: Parallel, workdir: str) -> dict:
    """Returns what `train` does, of settings that have been checked."""
    mirror = _open_mirror(config, workdir)
    with process_0_first():
        if mirror is not None and jax.process_index() == 0:
            mirror.fetch()
        config, workdir, prepared = _prepare(config, settings, parallel, workdir)
    total_steps = count_steps(config, len(prepared.train))
    run = build_run(
        config, settings, prepared.vocabulary, total_steps=total_steps, rows=prepared.train
    )
    if config.prepared:
        trained = init.count_parameters(run.trained)
        whole = trained + init.count_parameters([run.frozen.get(net) for net in run.trained])
        check_room(config, workdir, trained=trained, whole=whole)
    with process_0_first():
        check_remembered(
            workdir,
            "frozen_sha256",
            init.checksum(run.frozen),
            meaning="the frozen weights, which no checkpoint holds, are no longer the same; put "
            "back the teacher's checkpoint, or choose another --workdir",
        )
    _describe(config, settings, prepared, run, parallel, total_steps)
    train_state = _train(config, settings, workdir, prepared, run, parallel, total_steps, mirror)
    if jax.process_index() != 0:
        return {}
    summary = leave_result(config, settings.method, workdir, prepared, run, train_state)
    if mirror is not None:
        mirror.store_results()
    return summary


def _open_mirror(config: ConfigDict, workdir: str) -> Mirror | None:
    """Returns the copies of checkpoints and metrics in object storage, where they are asked for."""
    folder = local_workdir(workdir)
    if not config.checkpoint.directory:
        return None
    return Mirror(config.checkpoint.directory, folder, keep=config.checkpoint.keep)


def _prepare(
    config: ConfigDict, settings: Settings, parallel: Parallel, workdir: str
) -> tuple[ConfigDict, Path, Prepared]:
    """Returns the configuration with its batch size, the folder of the run, and its rows."""
    # What was found when the run began stays; what process 0 found, the others read after it.
    is_known = jax.process_index() != 0 or has_begun(Path(workdir).expanduser())
    recorded = recorded_batch_size(workdir) if is_known else None
    config, is_settled = batch_size.settle(config, parallel, recorded)
    resolved = config.to_dict() | {"dtype": settings.precision.name}
    workdir = open_workdir(workdir, resolved)
    prepared = prepare(config, workdir)
    if not is_settled:
        config.batch_size = largest_batch(config, settings, parallel, prepared)
        open_workdir(workdir, resolved | {"batch_size": config.batch_size})
    return config, workdir, prepared


def _train(
    config: ConfigDict,
    settings: Settings,
    workdir: Path,
    prepared: Prepared,
    run: Run,
    parallel: Parallel,
    total_steps: int,
    mirror: Mirror | None,
) -> state.TrainState:
    """Returns the state after the last update: the path of a batch, one line for each arrow."""
    batch_at = make_batch_at(
        prepared.train,
        batch_size=config.batch_size,
        seed=config.seed,
        buckets=config.rows.buckets,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    frozen = parallel.replicate(run.frozen_as_read)
    train_state = parallel.replicate(state.begin(run.trained, run.settings.optimizers))
    step_at = make_step_at(run, settings, parallel, total_steps)
    measure_heldout = make_heldout(
        run,
        prepared.heldout,
        parallel,
        frozen,
        batch_size=config.batch_size,
        max_rows=config.heldout.max_rows,
    )
    is_logged = make_due(config.log_every_steps, total_steps)
    is_measured = make_due(config.heldout.every_steps, total_steps)
    is_saved = make_due(config.checkpoint.every_steps, total_steps)

    with (
        Checkpointer(
            workdir / "checkpoints",
            keep=config.checkpoint.keep,
            on_saved=mirror and mirror.store,
        ) as checkpoints,
        StopSignal() as stop,
    ):
        unpack, pack = _make_packers(train_state, parallel)
        start = 0
        restored = checkpoints.restore(
            parallel.replicated_shapes(jax.eval_shape(state.unpack, train_state))
        )
        if restored:
            start, train_state = restored[0], pack(restored[1])
            LOG.info("Going on from the checkpoint of step %d.", start)
        visible = config.progress and jax.process_index() == 0
        with (
            MetricsWriter(workdir, resume_step=start if restored else None) as writer,
            Progress(
                config.method,
                start,
                total_steps,
                log=lambda step, metrics: is_logged(step) and writer.write(step, metrics),
                shown=_SHOWN,
                visible=visible,
                spent=writer.last_values,
            ) as progress,
        ):
            if start == 0:
                writer.write(0, measure_heldout(train_state.params))
            for done in range(start + 1, total_steps + 1):
                batch = parallel.shard_batch(batch_at(done - 1))
                step = step_at(done - 1)
                train_state = progress.run(done, step, train_state, frozen, batch)
                is_stopped = any_process(stop.is_set, done)
                if is_measured(done):
                    with progress.paused():
                        writer.write(done, measure_heldout(train_state.params))
                if is_saved(done) or is_stopped:
                    progress.settle()  # what is not finite is not saved
                    checkpoints.save(done, unpack(train_state))
                if is_stopped and done < total_steps:
                    checkpoints.wait()
                    raise SystemExit(farewell(done, total_steps, checkpoints.last_error))
            progress.settle()
        checkpoints.tidy()
        if checkpoints.last_error is not None:
            LOG.error("The last checkpoint could not be saved: %s", checkpoints.last_error)
    return train_state


def _make_packers(train_state, parallel):
    """Returns (unpack, pack): from the state of a step to that of a checkpoint, and back."""
    # Shapes: a run that goes on would keep the state that it began with in memory beside its own.
    shapes = jax.eval_shape(lambda tree: tree, train_state)

    def pack(tree):
        return state.pack_like(shapes, tree)

    unpack_saved = jax.jit(state.unpack)
    return (
        lambda tree: unpack_saved(parallel.to_save(tree)),
        jax.jit(pack, out_shardings=parallel.replicated),
    )


def _describe(config, settings, prepared, run, parallel, total_steps):
    rows = len(prepared.train)
    LOG.info(
        "%s: %d steps of %d rows (%.2f epochs of %s rows) on %d %s device(s) by %s, in %s",
        config.method,
        total_steps,
        config.batch_size,
        total_steps * config.batch_size / rows,
        f"{rows:,}",
        parallel.device_count,
        jax.default_backend(),
        parallel.engine,
        settings.precision.name,
    )
    run.describe()
