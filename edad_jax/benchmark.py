# SPDX-License-Identifier: Apache-2.0
"""How long an update takes: the single pass against the two stages that it replaces."""

import time
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from edad_jax import distill, flops, state
from edad_jax.build import Run, assemble_run
from edad_jax.build_nets import Vocabulary, extension_config, resolve_precision
from edad_jax.models.bert import BertConfig
from edad_jax.models.exbert import ExBert, ExBertConfig
from edad_jax.parallel import Parallel
from edad_jax.types import Batch

BERT_VOCABULARY = 30_522
WARM_UP = 2  # updates that are not timed


def benchmark_steps(
    config: ConfigDict,
    teacher_sizes: Sequence[int],
    *,
    repeats: int,
    methods: Sequence[str] = tuple(distill.METHODS),
    peak_tflops: float | None = None,
) -> dict:
    """Returns time, throughput and FLOPs of each method's step, on random weights and full rows.

    One method after the other, each alone in memory, as in a training run. (Taking turns update by
    update was tried: on a CPU the methods' temporaries then break up each other's heap, and the
    largest, EDAD's, are mapped anew each time, at 6.5 s an update instead of its own time.)

    Args:
      config: batch size, student, extension, vocabulary size, dtype and so on.
      teacher_sizes: (layers, width, heads, feed-forward) of the teacher's original BERT.
      repeats: timed updates of each method.
      methods: which steps.
      peak_tflops: what a device can do; None for what is known of its kind, maybe nothing.

    Returns:
      {"device", "devices", "dtype", "batch", "steps": {method: {"seconds" (median), "seconds_all",
      "tokens_per_second", "model_gflop" (`flops.step_flops`), "tflops" and "mfu" by these,
      "xla_gflop", "program_gb" (memory of one device), "compile_seconds"}}}, and, where all three
      ran, "two_stages_over_one_pass" in seconds and in both counts of FLOPs. XLA counts the program
      of one device before it optimises it, matrix products and everything else. (After it, the
      count depends on the machine: products given to a CPU maker's library count as nothing.)
    """
    parallel = Parallel(config.parallel.engine)
    parallel.check_batch_size(config.batch_size, config.accumulate_steps)
    batch = parallel.shard_batch(random_rows(config.batch_size, config.rows.max_length))
    tokens = config.batch_size * config.rows.max_length

    peak = peak_tflops or flops.peak_tflops(jax.devices()[0].device_kind)
    report = {}
    for method in methods:
        run = random_run(config, method, teacher_sizes)
        step = parallel.compile(
            distill.MAKERS[method](run.nets, run.settings), replicated_arguments=2, donate=True
        )
        train_state = parallel.replicate(state.begin(run.trained, run.settings.optimizers))
        frozen = parallel.replicate(run.frozen)
        start = time.perf_counter()
        lowered = step.lower(train_state, frozen, batch)
        compiled = lowered.compile()
        report[method] = {
            "seconds_all": [],
            "compile_seconds": time.perf_counter() - start,
            "xla_gflop": _flops(lowered) / 1e9,
            "program_gb": _program_gb(compiled),
            "model_gflop": flops.step_flops(
                method,
                run.nets.teacher.config,
                run.nets.student.config,
                rows=config.batch_size,
                length=config.rows.max_length,
                slots=min(
                    config.masking.max_predictions,
                    round(config.masking.share * config.rows.max_length),
                ),
                trains_base="base" in run.trained.get("teacher", {}),
            )
            / 1e9,
        }
        for number in range(WARM_UP + repeats):
            start = time.perf_counter()
            train_state, _ = step(train_state, frozen, batch)
            jax.block_until_ready(train_state)
            if number >= WARM_UP:
                report[method]["seconds_all"].append(time.perf_counter() - start)
        del run, step, lowered, compiled, train_state, frozen
    for row in report.values():
        row["seconds"] = float(np.median(row["seconds_all"]))
        row["tokens_per_second"] = tokens / row["seconds"]
        row["tflops"] = row["model_gflop"] / row["seconds"] / 1e3
        row["mfu"] = None if peak is None else row["tflops"] / (peak * parallel.device_count)

    result = {
        "device": jax.devices()[0].device_kind,
        "devices": parallel.device_count,
        "dtype": resolve_precision(config.dtype).name,
        "batch": [config.batch_size, config.rows.max_length],
        "steps": report,
    }
    if set(report) == set(distill.METHODS):
        result["two_stages_over_one_pass"] = {
            name: (report["adaptation"][name] + report["distillation"][name]) / report["edad"][name]
            for name in ("seconds", "xla_gflop", "model_gflop")
        }
    return result


def random_run(config: ConfigDict, method: str, teacher_sizes: Sequence[int]) -> Run:
    """Returns nets, random parameters and settings of a method; arguments as `benchmark_steps`."""
    vocabulary = Vocabulary(
        base_size=BERT_VOCABULARY,
        size=BERT_VOCABULARY + config.vocabulary.size,
        mask_id=103,
        cls_id=101,
        sep_id=102,
    )
    with config.unlocked():
        config.method = method
    return assemble_run(
        config,
        vocabulary,
        *_random_teacher(config, vocabulary, teacher_sizes),
        fresh=(),
        total_steps=1_000,
    )


def random_rows(rows: int, length: int) -> Batch:
    """Returns full rows of random pieces."""
    random = np.random.default_rng(0)
    return Batch(
        ids_bt=random.integers(1_000, BERT_VOCABULARY, (rows, length)).astype(np.int32),
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
        max_position_embeddings=512,
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
    return model, state.init_params(model, (config.seed, 0), gate_bias=config.teacher.gate_bias)


def _or(value, default):
    return default if value is None else value


def _program_gb(compiled):
    """Returns what a program holds on one device: arguments, results and all in between."""
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return (held + memory.temp_size_in_bytes - memory.alias_size_in_bytes) / 1e9


def _flops(lowered):
    analysis = lowered.cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]
