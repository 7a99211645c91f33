# SPDX-License-Identifier: Apache-2.0
"""The training run, from text to student, top to bottom."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from ml_collections import ConfigDict

from edad_jax.data.batches import make_batch_at, padded_batches
from edad_jax.data.prepare import Prepared, prepare
from edad_jax.distillation import evaluate, methods, phases, result
from edad_jax.distillation.build import Run, build_run, check_settings
from edad_jax.models import init
from edad_jax.models.precision import resolve_precision
from edad_jax.training import batch_size, state
from edad_jax.training.checkpoint import Checkpointer
from edad_jax.training.metrics import MetricsWriter
from edad_jax.training.parallel import Parallel, any_process, process_0_first, start_processes
from edad_jax.training.progress import Progress, StopSignal
from edad_jax.training.workdir import check_remembered, has_begun, open_workdir, recorded_batch_size
from edad_jax.types import Batch

LOG = logging.getLogger(__name__)


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
    check_settings(config)
    parallel = Parallel(config.parallel.engine)
    with process_0_first():
        config, is_settled = _settle_batch_size(config, parallel, workdir)
        resolved = config.to_dict() | {"dtype": resolve_precision(config.dtype).name}
        workdir = open_workdir(workdir, resolved)
        prepared = prepare(config, workdir)
        if not is_settled:
            config.batch_size = _find_batch_size(config, parallel, prepared)
            open_workdir(workdir, resolved | {"batch_size": config.batch_size})

    total_steps = config.max_steps or max(
        1, int(config.epochs * len(prepared.train) / config.batch_size)
    )
    run = build_run(config, prepared.vocabulary, total_steps=total_steps)
    with process_0_first():
        check_remembered(
            workdir,
            "frozen_sha256",
            init.checksum(run.frozen),
            meaning="the frozen weights, which no checkpoint holds, are no longer the same; put "
            "back the teacher's checkpoint, or choose another --workdir",
        )
    _describe(config, prepared, run, parallel, total_steps)

    batch_at = make_batch_at(
        prepared.train,
        batch_size=config.batch_size,
        seed=config.seed,
        buckets=config.rows.buckets,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    frozen = parallel.replicate(run.frozen)
    train_state = parallel.replicate(state.begin(run.trained, run.settings.optimizers))
    step_at = _make_step_at(config, run, parallel, total_steps)
    measure_heldout = _make_heldout(config, prepared, run, parallel, frozen)

    with (
        Checkpointer(workdir / "checkpoints", keep=config.checkpoint.keep) as checkpoints,
        StopSignal() as stop,
    ):
        restored = checkpoints.restore(train_state)
        start = 0
        if restored is not None:
            start, train_state = restored
            LOG.info("Going on from the checkpoint of step %d.", start)
        with (
            MetricsWriter(workdir, resume_step=None if restored is None else start) as writer,
            Progress(
                config.method,
                start,
                total_steps,
                shown=(
                    "tokens_per_second",
                    "alpha",
                    "teacher/mlm",
                    "student/mlm",
                    "distill/attention",
                    "distill/hidden",
                    "distill/soft",
                    "distill/cosine",
                    "distill/value",
                ),
                visible=config.progress and jax.process_index() == 0,
                spent=writer.last_values,
            ) as progress,
        ):
            if start == 0:
                writer.write(0, measure_heldout(train_state.params))
            compiled = set()
            for number in range(start, total_steps):
                batch = parallel.shard_batch(batch_at(number))
                phase, step = step_at(number)
                program = (phase, batch.ids_bt.shape)
                if is_new := program not in compiled:
                    progress.settle()
                train_state, metrics = step(train_state, frozen, batch)
                done = number + 1
                if is_late := is_new and bool(compiled):  # another length or phase: compiled now
                    jax.block_until_ready(metrics)
                    progress.restart_clock()
                compiled.add(program)
                is_last = done == total_steps
                is_saved = is_last or _is_due(done, config.checkpoint.every_steps)
                is_stopped = any_process(stop.is_set, done)
                is_logged = is_last or _is_due(done, config.log_every_steps)
                # Metrics are read one step late, so that the device never waits for this loop.
                progress.advance(
                    done, metrics, finish=is_saved or is_stopped or is_logged or is_late
                )
                if is_late:
                    progress.restart_clock()
                if is_logged:
                    writer.write(done, progress.last_metrics)
                if is_last or _is_due(done, config.heldout.every_steps):
                    writer.write(done, measure_heldout(train_state.params))
                    progress.restart_clock()
                if is_saved or is_stopped:
                    checkpoints.save(done, train_state)
                if is_stopped and not is_last:
                    checkpoints.wait()
                    raise SystemExit(_farewell(done, total_steps, checkpoints.last_error))
        checkpoints.wait()
        save_error = checkpoints.last_error

    if save_error is not None:
        LOG.error("The last checkpoint could not be saved: %s", save_error)
    if jax.process_index() != 0:
        return {}
    return result.leave_result(config, workdir, prepared, run, train_state)


def _settle_batch_size(
    config: ConfigDict, parallel: Parallel, workdir: str
) -> tuple[ConfigDict, bool]:
    """Returns a copy that may be changed, and whether its batch_size is what the run will take."""
    config = config.copy_and_resolve_references()
    rows = batch_size.read_setting(config.batch_size_per_device)
    if rows:
        config.batch_size = rows * parallel.device_count
    if rows is None:
        # What was found when the run began stays, on other devices too; and what process 0 found
        # is read by the others, whose turn comes after.
        is_known = jax.process_index() != 0 or has_begun(Path(workdir).expanduser())
        recorded = recorded_batch_size(workdir) if is_known else None
        if recorded is None:
            return config, False
        config.batch_size = recorded
    parallel.check_batch_size(config.batch_size, config.accumulate_steps)
    return config, True


def _find_batch_size(config: ConfigDict, parallel: Parallel, prepared: Prepared) -> int:
    """Returns the largest batch whose step fits the devices' memory, by compiling it."""
    run = build_run(config, prepared.vocabulary, total_steps=1)
    train_state, frozen = jax.eval_shape(
        lambda trained, frozen: (state.begin(trained, run.settings.optimizers), frozen),
        run.trained,
        run.frozen,
    )
    step = methods.MAKERS[config.method](run.nets, run.settings)
    rows = batch_size.find_batch_size(
        lambda rows: batch_size.step_bytes(
            step, train_state, frozen, rows=rows, length=config.rows.max_length
        ),
        budget=batch_size.memory_budget(config.memory_gb, jax.local_devices()[0]),
        unit=config.accumulate_steps,
        most=len(prepared.train) // parallel.device_count,
    )
    LOG.info("%d rows on each of %d device(s).", rows, parallel.device_count)
    return rows * parallel.device_count


def _make_step_at(
    config: ConfigDict, run: Run, parallel: Parallel, total_steps: int
) -> Callable[[int], tuple[phases.Phase, Callable]]:
    """Returns step_at(updates already made) -> (phase, its step); steps are made when first met."""
    phase_at = phases.make_phase_at(config.savings, run.settings.alpha, total_steps)
    steps = {}

    def step_at(number):
        phase = phase_at(number)
        if phase not in steps:
            if steps or phase != phases.WHOLE:
                LOG.info("Compiling for step %d and its like: %s.", number + 1, phase.describe())
            settings = dataclasses.replace(run.settings, phase=phase)
            steps[phase] = parallel.compile(
                methods.MAKERS[config.method](run.nets, settings),
                replicated_arguments=2,
                donate=True,
            )
        return phase, steps[phase]

    return step_at


def _make_heldout(
    config: ConfigDict, prepared: Prepared, run: Run, parallel: Parallel, frozen: dict
) -> Callable:
    """Returns measure(trained params) -> means over the held-out rows."""
    evaluation = parallel.compile(
        evaluate.make_evaluation_step(
            run.models, run.settings.masking, with_nsp=run.settings.with_nsp
        ),
        replicated_arguments=2,
        donate=False,
    )

    def batches() -> Iterator[Batch]:
        return padded_batches(
            prepared.heldout,
            batch_size=config.batch_size,
            max_rows=config.heldout.max_rows,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def measure(trained):
        return evaluate.mean_over(
            evaluation(trained, frozen, parallel.shard_batch(batch)) for batch in batches()
        )

    return measure


def _is_due(step, every_steps):
    return every_steps > 0 and step % every_steps == 0


def _farewell(done, total_steps, save_error):
    where = f"stopped by a signal at step {done} of {total_steps}"
    if save_error is not None:
        return f"{where}; its checkpoint could not be saved ({save_error}), the one before is whole"
    return f"{where}; the checkpoint is saved, and the same command goes on from there"


def _describe(config, prepared, run, parallel, total_steps):
    rows = len(prepared.train)
    LOG.info(
        "%s: %d steps of %d rows (%.2f epochs of %s rows) on %d %s device(s) by %s, products in %s",
        *(config.method, total_steps, config.batch_size),
        *(total_steps * config.batch_size / rows, f"{rows:,}"),
        *(
            parallel.device_count,
            jax.default_backend(),
            parallel.engine,
            resolve_precision(config.dtype).name,
        ),
    )
    for net in run.models:
        params = run.all_params(run.trained, net)
        LOG.info(
            "%s: %s parameters, of which %s are trained",
            net,
            f"{init.count_parameters(params):,}",
            f"{init.count_parameters(run.trained.get(net, {})):,}",
        )
