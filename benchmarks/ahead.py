# SPDX-License-Identifier: Apache-2.0
"""The step of a training run, compiled for accelerators that are not here.

XLA's compilers for them come as packages and run on a CPU. `prepare_environment` has to be called
before jax is imported. Nothing is computed and nothing is placed on a device.
"""

import contextlib
import dataclasses
import time
from typing import NamedTuple

import jax
from jax.experimental import topologies
from ml_collections import ConfigDict

from benchmarks.step import Case, batch_shape, model_gflop, random_rows, random_run
from benchmarks.targets import Target, describe_gpu
from edad_jax.distillation.build import Run
from edad_jax.distillation.methods import METHODS
from edad_jax.distillation.phases import Phase
from edad_jax.machine import compiling_for
from edad_jax.training import state
from edad_jax.training.parallel import Parallel


class Program(NamedTuple):
    """What came of compiling."""

    text: str  # optimised, of one device
    run: Run
    memory: dict[str, float]  # bytes of one device: arguments, results, reused, temporaries, peak
    model_gflop: float  # of an update, all devices together
    trace_seconds: float
    compile_seconds: float


def describe_devices(target: Target) -> list:
    """Returns the devices of a target, which can be compiled for and nothing else.

    Raises:
      ValueError: their compiler cannot describe them; says what it said.
    """
    try:
        if target.platform == "gpu":
            topology = topologies.get_topology_desc(
                platform="cuda", topology=target.topology, target_config=describe_gpu(target.device)
            )
        else:
            single = {"chips_per_host_bounds": (1, 1, 1)} if target.devices == 1 else {}
            topology = topologies.get_topology_desc(
                platform="tpu", topology_name=target.topology, **single
            )
    except (RuntimeError, NotImplementedError, ImportError) as error:
        raise ValueError(
            f"the compiler for {target.platform.upper()}s cannot describe {target.name}: {error}; "
            "expected the versions of constraints.txt, and `prepare_environment` before jax"
        ) from error
    return list(topology.devices)


def compile_step(case: Case, target: Target) -> Program:
    """Returns the compiled step of a case; its `devices` are the target's.

    Raises:
      ValueError: as `describe_devices`; a batch that does not split over the devices; or a step
        that does not fit the memory of a TPU, whose compiler then gives up; says by how much.
    """
    config = on_target(case.config)
    case = case._replace(config=config)
    parallel = Parallel(config.parallel.engine, describe_devices(target))
    parallel.check_batch_size(config.batch_size, config.accumulate_steps)
    with compiling_for(target.platform), _cudnn_of(target):
        run = random_run(config, case.method, case.teacher, words=case.words)
        settings = dataclasses.replace(run.settings, phase=Phase(*case.phase))
        step = parallel.compile(
            METHODS[case.method].make_step(run.nets, settings), replicated_arguments=2, donate=True
        )
        start = time.perf_counter()
        lowered = step.lower(*_arguments(case, run, parallel))
        traced = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ValueError(
            f"{config.batch_size // target.devices} rows on each {target.device} do not fit its "
            f"memory: {str(error).splitlines()[0]}; try a smaller --config.batch_size, "
            "--config.accumulate_steps or --config.remat=blocks"
        ) from error
    return Program(
        text=compiled.as_text(),
        run=run,
        memory=memory_of(compiled),
        model_gflop=model_gflop(case, run),
        trace_seconds=traced - start,
        compile_seconds=time.perf_counter() - traced,
    )


@contextlib.contextmanager
def _cudnn_of(target):
    """Tells jax the version of cuDNN that the target has, which it asks for when it traces.

    Where NVIDIA's libraries are not installed it has no answer, and jax has no public name for it.
    """
    from jax._src.cudnn import fused_attention_stablehlo

    asked = fused_attention_stablehlo.check_cudnn_version
    if target.platform == "gpu":
        fused_attention_stablehlo.check_cudnn_version = lambda: 91000  # as `describe_gpu` says
    try:
        yield
    finally:
        fused_attention_stablehlo.check_cudnn_version = asked


def on_target(config: ConfigDict) -> ConfigDict:
    """Returns a copy in which "auto" is what it is on accelerators; here it would ask this CPU.

    The engine is shard_map, whose program is pmap's and which several hosts can run too.
    """
    config = config.copy_and_resolve_references()
    if config.dtype == "auto":
        config.dtype = "bfloat16"
    if config.parallel.engine == "auto":
        config.parallel.engine = "shard_map"
    return config


def _arguments(case, run, parallel):
    """Returns shapes in place of what `step.Loop` calls the step with."""
    rows, length = batch_shape(case.config)
    train_state, frozen = jax.eval_shape(
        lambda trained, frozen: (state.begin(trained, run.settings.optimizers), frozen),
        run.trained,
        run.frozen_as_read,
    )
    batch = random_rows(rows, length, words=case.words)
    return (*parallel.replicated_shapes((train_state, frozen)), parallel.batch_shapes(batch))


def memory_of(compiled: jax.stages.Compiled) -> dict[str, float]:
    """Returns the bytes of one device that a program takes, as a `Program` has them."""
    told = compiled.memory_analysis()
    return {
        "arguments": told.argument_size_in_bytes,
        "results": told.output_size_in_bytes,
        "reused": told.alias_size_in_bytes,  # of the arguments, for results
        "temporaries": told.temp_size_in_bytes,
        "peak": told.peak_memory_in_bytes,
    }
