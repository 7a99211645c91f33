# SPDX-License-Identifier: Apache-2.0
"""Held-out text: MLM loss and accuracy, NSP accuracy, and agreement of student and teacher."""

import time
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from edad_jax.data import masking
from edad_jax.data.batches import Rows, padded_batches
from edad_jax.distillation import losses
from edad_jax.distillation.build import Run
from edad_jax.models.exbert import ExBert
from edad_jax.training.parallel import AXIS, Parallel
from edad_jax.training.state import unpack
from edad_jax.types import Batch


def make_evaluation_step(
    models: Mapping[str, ExBert], masking_config: masking.MaskingConfig, *, with_nsp: bool = True
) -> Callable:
    """Returns step(trained, frozen, batch) -> sums over the batch, without dropout.

    `trained` and `frozen` map each net's name to its parts. Rows are masked as in training, by
    their number, so all nets and all evaluations are asked the same questions. NSP is left out for
    rows of single segments (`with_nsp`) and for nets without its head.
    """

    def step(trained: dict, frozen: dict, batch: Batch) -> dict:
        masked = masking.mask_rows(batch, masking_config)
        counts = losses.count_targets(masked)
        sums = {"masked": counts.masked, "examples": counts.examples}
        guesses = []
        for net, model in models.items():
            params = unpack(trained.get(net, {})) | frozen.get(net, {})
            _, mlm_logits, nsp_logits_bc = model.apply({"params": params}, masked)
            guess_bm = jnp.concatenate(mlm_logits, axis=-1).argmax(axis=-1)
            right_bm = (guess_bm == masked.masked_labels_bm) * masked.masked_weights_bm
            sums[f"{net}_mlm_loss"] = losses.mlm_loss(mlm_logits, masked).sum()
            sums[f"{net}_mlm_accuracy"] = right_bm.sum()
            if with_nsp and nsp_logits_bc is not None:
                is_right_b = nsp_logits_bc.argmax(axis=-1) == masked.next_sentence_b
                right_b = is_right_b * masked.mask_bt[:, 0]
                sums[f"{net}_nsp_accuracy"] = right_b.sum().astype(jnp.float32)
            guesses.append(guess_bm)
        if len(guesses) == 2:
            same_bm = (guesses[0] == guesses[1]) * masked.masked_weights_bm
            sums["agreement"] = same_bm.sum()
        return jax.lax.psum(sums, AXIS)

    return step


def make_heldout(
    run: Run, rows: Rows, parallel: Parallel, frozen: dict, *, batch_size: int, max_rows: int
) -> Callable[[dict], dict[str, float]]:
    """Returns measure(trained parameters) -> means over the held-out rows.

    Args:
      run: its nets.
      rows: to be held out.
      parallel: the devices.
      frozen: what the nets only read, on the devices.
      batch_size: over all devices.
      max_rows: read at each measurement.
    """
    step = make_evaluation_step(run.models, run.settings.masking, with_nsp=run.settings.with_nsp)
    step = parallel.compile(step, replicated_arguments=2, donate=False)

    def measure(trained):
        batches = padded_batches(
            rows,
            batch_size=batch_size,
            max_rows=max_rows,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return mean_over(step(trained, frozen, parallel.shard_batch(batch)) for batch in batches)

    return measure


def mean_over(sums: Iterable[Mapping[str, jax.Array]]) -> dict[str, float]:
    """Returns the means over all batches: {"heldout/student_mlm_accuracy": 0.31, ...}.

    Losses are in nats per masked piece, accuracies and agreement are shares.

    Raises:
      ValueError: where there was nothing to predict.
    """
    total = None
    for each in sums:
        each = {name: np.float64(value) for name, value in jax.device_get(each).items()}
        total = each if total is None else {name: total[name] + each[name] for name in total}
    if total is None or total["masked"] == 0:
        raise ValueError(
            "the held-out rows hold no masked piece; give more text or a larger "
            "config.heldout.fraction"
        )
    return {
        f"heldout/{name}": float(value / total["examples" if "nsp" in name else "masked"])
        for name, value in total.items()
        if name not in ("masked", "examples")
    }


def measure_speed(
    nets: Mapping[str, tuple[ExBert, dict]], *, length: int, rows: int = 8, repeats: int = 7
) -> dict[str, float]:
    """Returns rows per second of each net's encoder, without heads, on one device.

    Each figure is from the median of `repeats` batches of `rows` full rows; the nets take
    turns, so that a machine that slows down does so for all.
    """
    ids_bt = jnp.ones((rows, length), jnp.int32)
    runs = {
        net: jax.jit(
            lambda params, model=model: (
                model.apply(
                    {"params": params},
                    ids_bt,
                    jnp.zeros_like(ids_bt),
                    ids_bt > 0,
                    method="encode",
                ).last_hidden_btd
            )
        )
        for net, (model, _) in nets.items()
    }
    device_params = {net: jax.device_put(params) for net, (_, params) in nets.items()}
    seconds = {net: [] for net in nets}
    for turn in range(repeats + 1):
        for net, encode in runs.items():
            start = time.perf_counter()
            encode(device_params[net]).block_until_ready()
            if turn:  # the first one compiles
                seconds[net].append(time.perf_counter() - start)
    return {net: rows / float(np.median(times)) for net, times in seconds.items()}
