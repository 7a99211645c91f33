# SPDX-License-Identifier: Apache-2.0
"""How fast the student's encoder answers on the device, beside its teacher's; random weights."""

import os
import statistics
import time

import jax
import numpy as np

from benchmarks.field_part import (
    Figures,
    base_words,
    paper_config,
    read_place,
    teacher_sizes,
    with_flags,
)

BATCHES = (1, 128)


def main() -> None:
    """Times both encoders in bfloat16, each with every batch."""
    from benchmarks.step import random_run

    place = read_place(__doc__)
    figures = Figures(place.out)
    os.environ |= with_flags(place.xla_flags)  # which are read when a device is met first
    config = paper_config(place.is_rehearsal)
    words = base_words(place.is_rehearsal)
    run = random_run(config, "edad", teacher_sizes(place.is_rehearsal), words=words)
    calls = 5 if place.is_rehearsal else 200
    for name in ("student", "teacher"):
        model = getattr(run.nets, name)
        params = jax.device_put(run.all_params(run.trained, name))
        params.pop("projection", None)
        for batch in BATCHES:
            ids_bt = np.random.default_rng(0).integers(
                words // 30, words, (batch, config.rows.max_length)
            )
            figures.attempt(
                f"{name}, batch {batch}",
                lambda model=model, params=params, ids_bt=ids_bt: time_encoder(
                    model, params, ids_bt.astype(np.int32), calls=calls
                ),
            )


def time_encoder(model, params, ids_bt: np.ndarray, *, calls: int) -> dict:
    """Returns seconds of a call that is waited for, and of calls in a row; rows/s by the latter."""
    segments_bt, mask_bt = np.zeros_like(ids_bt), np.ones(ids_bt.shape, bool)

    @jax.jit
    def encode(params, ids_bt):
        output = model.apply({"params": params}, ids_bt, segments_bt, mask_bt, method=model.encode)
        return output.last_hidden_btd

    ids_bt = jax.device_put(ids_bt)
    for _ in range(3):
        encode(params, ids_bt).block_until_ready()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        encode(params, ids_bt).block_until_ready()
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    for _ in range(calls):
        last = encode(params, ids_bt)
    last.block_until_ready()
    in_a_row = (time.perf_counter() - start) / calls
    return {
        "device": jax.devices()[0].device_kind,
        "batch": list(ids_bt.shape),
        "dtype": model.dtype.name,
        "seconds": statistics.median(seconds),
        "seconds_p90": float(np.percentile(seconds, 90)),
        "seconds_in_a_row": in_a_row,
        "rows_per_second": ids_bt.shape[0] / in_a_row,
    }


if __name__ == "__main__":
    main()
