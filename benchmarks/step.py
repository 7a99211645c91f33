# SPDX-License-Identifier: Apache-2.0
"""One update, measured: random weights, full rows, the step as a training run compiles it."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import flops
from edad_jax.distillation.build import Run, assemble_run
from edad_jax.distillation.methods import METHODS
from edad_jax.distillation.nets import extension_config
from edad_jax.distillation.phases import WHOLE, Phase
from edad_jax.distillation.settings import read_settings
from edad_jax.machine import peak_resident_bytes
from edad_jax.models import init
from edad_jax.models.config import BertConfig, ExBertConfig
from edad_jax.models.exbert import ExBert
from edad_jax.models.precision import resolve_precision
from edad_jax.training import state
from edad_jax.training.parallel import Parallel, program_bytes
from edad_jax.types import Batch, Vocabulary

BERT_VOCABULARY = 30_522
WARM_UP = 2  # updates that are not timed
MEASURED = ("edad", "adaptation", "distillation")  # the single pass, and the two stages


class Case(NamedTuple):
    """A step to measure."""

    config: ConfigDict  # batch size, student, extension, vocabulary size, dtype and so on
    teacher: Sequence[int]  # layers, width, heads, feed-forward width of the original BERT
    method: str
    devices: int = 0  # the first so many; 0: all
    words: int = BERT_VOCABULARY  # of the original BERT
    phase: Sequence = WHOLE  # the fields of a `Phase`: what EDAD's update leaves out


class Loop:
    """A compiled step with its state and a batch, to be run again and again.

    Attributes:
      state: what an update takes and gives; `to_save` has it as a checkpoint does.
      facts: what is known without running it: FLOPs, memory, seconds of tracing and compiling.
      run: what the step closes over, with shapes in place of parameters.
      compiled: the step.
    """

    def __init__(self, case: Case):
        """Makes weights and rows, and compiles the step."""
        self._case = case
        config, (rows, length) = case.config, batch_shape(case.config)
        parallel = Parallel(config.parallel.engine, jax.devices()[: case.devices or None])
        parallel.check_batch_size(rows, config.accumulate_steps)
        run = random_run(config, case.method, case.teacher, words=case.words)
        phase = Phase(*case.phase)
        settings = dataclasses.replace(run.settings, phase=phase)
        step = parallel.compile(
            METHODS[case.method].make_step(run.nets, settings),
            replicated_arguments=2,
            donate=True,
        )
        self._parallel, self._unpack = parallel, jax.jit(state.unpack)
        self.state = parallel.replicate(state.begin(run.trained, run.settings.optimizers))
        self._frozen = parallel.replicate(run.frozen_as_read)
        self._batch = parallel.shard_batch(random_rows(rows, length, words=case.words))
        start = time.perf_counter()
        lowered = step.lower(self.state, self._frozen, self._batch)
        traced = time.perf_counter()
        self.compiled = lowered.compile()
        shapes = jax.eval_shape(lambda trees: trees, (run.trained, run.frozen))
        self.run = dataclasses.replace(run, trained=shapes[0], frozen=shapes[1])
        self.facts = {
            "devices": parallel.device_count,
            "trace_seconds": traced - start,
            "compile_seconds": time.perf_counter() - traced,
            "program_gb": program_bytes(self.compiled) / 1e9,
            "xla_gflop": _gflop(lowered),
            "model_gflop": model_gflop(case, run),
        }

    def to_save(self) -> state.TrainState:
        """Returns the state as the training loop hands it to a checkpoint."""
        return self._unpack(self._parallel.to_save(self.state))

    def update(self) -> float:
        """Returns the seconds of one update, with the devices idle before and after it."""
        start = time.perf_counter()
        self.state, _ = self.compiled(self.state, self._frozen, self._batch)
        jax.block_until_ready(self.state)
        return time.perf_counter() - start

    def updates_in_a_row(self, count: int) -> float:
        """Returns the seconds of one of so many updates that the host does not wait for."""
        start = time.perf_counter()
        for _ in range(count):
            self.state, _ = self.compiled(self.state, self._frozen, self._batch)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - start) / count

    def machine(self) -> dict[str, Any]:
        """Returns the kind of device, how many are used, the type and the batch."""
        config = self._case.config
        return {
            "device": jax.devices()[0].device_kind,
            "devices": self.facts["devices"],
            "dtype": resolve_precision(config.dtype).name,
            "batch": batch_shape(config),
        }

    def program_text(self) -> str:
        """Returns the compiled program."""
        return self.compiled.as_text()


def time_step(case: Case, *, repeats: int, peak_tflops: float | None, started: float) -> dict:
    """Returns what `time_loop` measures of a case's step."""
    return time_loop(Loop(case), repeats=repeats, peak_tflops=peak_tflops, started=started)


def time_loop(loop: Loop, *, repeats: int, peak_tflops: float | None, started: float) -> dict:
    """Returns time, throughput, FLOPs and memory of an update.

    Args:
      loop: a step, compiled.
      repeats: timed updates.
      peak_tflops: what a device can do; None for what is known of its kind, maybe nothing.
      started: when the process was started, by `time.time`.

    Returns:
      "seconds" (median), "seconds_p10", "seconds_p90", "seconds_all", "tokens_per_second",
      "model_gflop" (`flops.step_flops`), "tflops" and "mfu" by these, "xla_gflop", "program_gb"
      (of one device), "peak_gb" (of one device, or where its backend does not tell, of the
      process: "peak_of"), "trace_seconds", "compile_seconds", "first_step_seconds" (from the start
      of the process), and the machine: "device", "devices", "devices_there", "dtype", "batch".

    XLA counts the program of one device before it optimises it, matrix products and everything
    else. (After it, the count depends on the machine: products given to a CPU maker's library
    count as nothing.)
    """
    loop.update()
    first_step_seconds = time.time() - started
    for _ in range(WARM_UP - 1):
        loop.update()
    seconds = [loop.update() for _ in range(repeats)]
    median = float(np.median(seconds))
    device, batch = jax.devices()[0], loop.machine()["batch"]
    peak = peak_tflops or flops.peak_tflops(device.device_kind)
    tflops = loop.facts["model_gflop"] / median / 1e3
    facts = loop.facts | loop.machine() | peak_memory(device)
    return facts | {
        "seconds": median,
        "seconds_p10": float(np.percentile(seconds, 10)),
        "seconds_p90": float(np.percentile(seconds, 90)),
        "seconds_all": seconds,
        "tokens_per_second": batch[0] * batch[1] / median,
        "tflops": tflops,
        "mfu": None if peak is None else tflops / (peak * loop.facts["devices"]),
        "first_step_seconds": first_step_seconds,
        "devices_there": jax.device_count(),
    }


def two_stages_over_one_pass(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, float] | None:
    """Returns what both stages take over what EDAD takes; None unless all three were measured."""
    if not set(MEASURED) <= set(steps):
        return None
    return {
        name: (steps["adaptation"][name] + steps["distillation"][name]) / steps["edad"][name]
        for name in ("seconds", "xla_gflop", "model_gflop")
        if steps["edad"][name] is not None
    }


def model_gflop(case: Case, run: Run) -> float:
    """Returns the model FLOPs of an update of a case, all devices together, in billions."""
    config, (rows, length) = case.config, batch_shape(case.config)
    slots = min(
        config.masking.max_predictions_per_seq, round(config.masking.mlm_probability * length)
    )
    count = flops.step_flops(
        case.method,
        run.nets.teacher.config,
        run.nets.student.config,
        rows=rows,
        length=length,
        slots=slots,
        trains_base="base" in run.trained.get("teacher", {}),
        phase=Phase(*case.phase),
    )
    return count / 1e9


def batch_shape(config: ConfigDict) -> list[int]:
    """Returns rows and pieces of a batch."""
    return [config.batch_size, config.rows.max_length]


def random_run(
    config: ConfigDict, method: str, teacher_sizes: Sequence[int], *, words: int = BERT_VOCABULARY
) -> Run:
    """Returns nets, random parameters and settings of a method; arguments as in a `Case`."""
    size = words + config.vocabulary.size
    # There is no text to count: where masking weighs pieces, all weigh alike.
    counts = np.ones(size, np.int64) if config.masking.smoothing else None
    vocabulary = Vocabulary(words, size, mask_id=103, cls_id=101, sep_id=102, token_counts=counts)
    with config.unlocked():
        config.method = method
    return assemble_run(
        config,
        read_settings(config),
        vocabulary,
        *_random_teacher(config, vocabulary, teacher_sizes),
        fresh=(),
        total_steps=1_000,
    )


def random_rows(rows: int, length: int, *, words: int = BERT_VOCABULARY) -> Batch:
    """Returns full rows of random pieces."""
    random = np.random.default_rng(0)
    return Batch(
        ids_bt=random.integers(words // 30, words, (rows, length)).astype(np.int32),
        segment_b_start_b=np.full(rows, length // 2, np.int32),
        length_b=np.full(rows, length, np.int32),
        next_sentence_b=random.integers(0, 2, rows).astype(np.int32),
        row_b=np.arange(rows, dtype=np.int32),
        epoch_b=np.zeros(rows, np.int32),
    )


def _random_teacher(config, vocabulary, sizes):
    layers, width, heads, inner = sizes
    base = BertConfig(
        vocab_size=vocabulary.base_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=max(512, config.rows.max_length),
        type_vocab_size=2,
        hidden_dropout_prob=_or(config.teacher.hidden_dropout_prob, 0.1),
        attention_probs_dropout_prob=_or(config.teacher.attention_probs_dropout_prob, 0.1),
        layer_norm_eps=1e-12,
        initializer_range=0.02,
    )
    extension = extension_config(config.teacher.extension)
    model = ExBert(
        ExBertConfig(base, extension, vocabulary.added_size), *resolve_precision(config.dtype)
    )
    return model, init.init_params(model, (config.seed, 0), gate_bias=config.teacher.gate_bias)


def _or(value, default):
    return default if value is None else value


def peak_memory(device):
    """Returns the largest memory so far: the device's, or the process's where it does not tell."""
    told = device.memory_stats() or {}
    if "peak_bytes_in_use" in told:
        return {"peak_gb": told["peak_bytes_in_use"] / 1e9, "peak_of": "device"}
    return {"peak_gb": peak_resident_bytes() / 1e9, "peak_of": "process"}


def _gflop(lowered):
    """Returns what XLA counts; None on GPUs and TPUs, whose plugins do not tell."""
    analysis = lowered.cost_analysis()
    told = analysis[0] if isinstance(analysis, list) else analysis
    return None if told is None else told["flops"] / 1e9
