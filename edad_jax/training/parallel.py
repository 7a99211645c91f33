# SPDX-License-Identifier: Apache-2.0
"""From a per-device step to all devices; the only file that spreads work over them.

A step is written for one device, with the axis name "data": (state, frozen, batch) ->
(state, metrics), or for evaluation (trained, frozen, batch) -> sums. All arguments but the last
are the same on every device; the last is split along the batch axis; results are the same
everywhere.

Two engines run it, with the same numbers:
- `pmap`: the default in one process;
- `shard_map`: needed across processes (there, pmap with a replicated state and donation
  fails with "Array has been deleted", seen on jax 0.10.2), and possible in one.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
ENGINES = ("pmap", "shard_map")
_BARRIERS = itertools.count()  # a barrier serves once; all processes count alike


def start_processes(*, coordinator: str, process_count: int, process_index: int) -> None:
    """Joins the other processes of a run (NCCL on GPUs, gloo on CPUs).

    Call it before anything else touches a device. process_count 1 means: this process alone.
    With process_count 0, jax finds all three from the cluster it runs on (Slurm, TPU pods).
    """
    if process_count == 1:
        return
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if process_count == 0:
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(coordinator, process_count, process_index)


@contextlib.contextmanager
def process_0_first() -> Iterator[None]:
    """Lets process 0 do the block before the others, who then find its files.

    The others wait for a day at most: preparing text takes hours. A collective of the devices
    would give up after minutes, so this asks the coordination service. Where process 0 fails,
    the others are let go, and meet the same error.
    """
    if jax.process_count() > 1 and jax.process_index() != 0:
        _wait_for_all()
    try:
        yield
    finally:
        if jax.process_count() > 1 and jax.process_index() == 0:
            _wait_for_all()


def _wait_for_all():
    # jax has no public name for this barrier; orbax waits by the same one.
    from jax._src.distributed import global_state

    name = f"edad_jax: process 0 is done ({next(_BARRIERS)})"
    global_state.client.wait_at_barrier(name, timeout_in_ms=24 * 3600 * 1000)


def any_process(flag: bool, step: int, *, every: int = 10) -> bool:
    """Returns whether the flag is up in any process, the same answer in all.

    Across processes it asks at every tenth step only, since asking means waiting for all.
    """
    if jax.process_count() == 1:
        return flag
    if step % every:
        return False
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def program_bytes(compiled: jax.stages.Compiled) -> int:
    """Returns what a program holds on one device: arguments, results and all in between."""
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return held + memory.temp_size_in_bytes - memory.alias_size_in_bytes


class Parallel:
    """Runs per-device steps on the devices of this run."""

    def __init__(self, engine: str, devices: list | None = None):
        """Takes all devices of all processes where `devices` is None.

        Raises:
          ValueError: on an unknown engine, or pmap across processes.
        """
        if engine == "auto":
            engine = "pmap" if jax.process_count() == 1 else "shard_map"
        if engine not in ENGINES:
            raise ValueError(
                f"config.parallel.engine={engine!r} is not one of auto, {', '.join(ENGINES)}"
            )
        if engine == "pmap" and jax.process_count() > 1:
            raise ValueError(
                "config.parallel.engine='pmap' runs in one process; got "
                f"{jax.process_count()} processes; use 'shard_map' or 'auto'"
            )
        self.engine = engine
        self.devices = list(devices or jax.devices())
        # Not make_mesh, which reorders the devices of a TPU, where pmap takes them as they come.
        self._mesh = Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(self._mesh, PartitionSpec())

    @property
    def device_count(self) -> int:
        """Returns the number of devices of all processes."""
        return len(self.devices)

    def check_batch_size(self, batch_size: int, accumulate_steps: int) -> None:
        """Raises ValueError where a batch does not split over devices and micro-batches."""
        parts = self.device_count * accumulate_steps
        if batch_size % parts:
            raise ValueError(
                f"config.batch_size={batch_size} does not split over {self.device_count} devices "
                f"x {accumulate_steps} micro-batches; choose a multiple of {parts}"
            )

    def replicate(self, tree: Any) -> Any:
        """Returns the tree on every device, in buffers of its own (a step may donate them)."""

        def place(x):
            x = np.array(x)
            return jax.make_array_from_callback(x.shape, self.replicated, lambda index: x[index])

        return jax.tree.map(place, tree)

    def to_save(self, tree: Any) -> Any:
        """Returns a replicated tree as a checkpoint should be given it: on one device if it can be.

        Of an array that several devices of a process hold, orbax has each write a part, which it
        first cuts out array by array: thousands of small programs for each checkpoint.
        """
        if jax.process_count() > 1:
            return tree  # orbax wants to see all devices, and so which process writes
        return jax.tree.map(lambda x: x.addressable_shards[0].data, tree)

    def shard_batch(self, batch: Any) -> Any:
        """Returns this process's part of a batch in the form that the steps take."""
        if self.engine == "pmap":
            count = len(self.devices)
            return jax.tree.map(lambda x: np.reshape(x, (count, -1, *x.shape[1:])), batch)
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
        )

    def replicated_shapes(self, tree: Any) -> Any:
        """Returns shapes in place of what `replicate` returns; enough to compile a step with."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.replicated), tree
        )

    def batch_shapes(self, batch: Any) -> Any:
        """Returns shapes in place of what `shard_batch` returns, of a batch of all processes."""
        if self.engine == "pmap":
            count = len(self.devices)
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((count, len(x) // count, *x.shape[1:]), x.dtype),
                batch,
            )
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), batch
        )

    def compile(self, step: Callable, *, replicated_arguments: int, donate: bool) -> Callable:
        """Returns the step, run on all devices at once.

        Args:
          step: a per-device function that uses the axis name AXIS for its sums.
          replicated_arguments: number of arguments before the batch.
          donate: whether the first argument's buffers may be reused for the result.
        """
        donate_argnums = (0,) if donate else ()
        step = _as_written(step)
        if self.engine == "pmap":
            return jax.pmap(
                step,
                axis_name=AXIS,
                in_axes=(None,) * replicated_arguments + (0,),
                out_axes=None,
                devices=self.devices,
                donate_argnums=donate_argnums,
            )
        return jax.jit(
            jax.shard_map(
                step,
                mesh=self._mesh,
                in_specs=(PartitionSpec(),) * replicated_arguments + (PartitionSpec(AXIS),),
                out_specs=PartitionSpec(),
                check_vma=False,  # the step sums its own gradients, as under pmap
            ),
            donate_argnums=donate_argnums,
        )


def _as_written(step):
    """Returns the step with products of float32 in float32.

    By default a TPU multiplies them as bfloat16 and a GPU as TF32. Products of bfloat16, which are
    nearly all where dtype is bfloat16, stay what they are.
    """

    @functools.wraps(step)
    def exact(*arguments):
        with jax.default_matmul_precision("highest"):
            return step(*arguments)

    return exact
