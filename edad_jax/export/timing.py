# SPDX-License-Identifier: Apache-2.0
"""Times one model in a process of its own: latency, throughput, memory, cold start.

    python -m edad_jax.export.timing '{"kind": "onnx", "folder": "runs/ner/onnx-int8", ...}'

Prints one line of JSON. The process imports what this model needs and nothing else, so that its
memory and its start are the model's own; with "onnx" that is numpy, onnxruntime and tokenizers.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np

from edad_jax.machine import peak_resident_bytes

TORCH_SIZES = {  # what Hugging Face calls them; random weights take as long as others
    "bert-base": ("BertConfig", "BertModel", {}),
    "distilbert": ("DistilBertConfig", "DistilBertModel", {}),
}


def main() -> None:
    """Reads the job from the command line and prints what was measured."""
    job = json.loads(sys.argv[1])
    run, first, words = {"onnx": _open_onnx, "torch": _open_torch}[job["kind"]](job)
    first()
    result = {"cold_start": time.time() - job["started"]}
    result["memory_mb"] = peak_resident_bytes() / 1e6
    result["cells"] = [
        {"batch": batch, "length": length, **_time(run, words, batch, length, job["seconds"])}
        for batch in job["batches"]
        for length in job["lengths"]
        if length <= job["longest"]
    ]
    result["peak_memory_mb"] = peak_resident_bytes() / 1e6
    print(json.dumps(result))


def _open_onnx(job):
    from edad_jax.export.runtime import Reader, open_model

    model = open_model(job["folder"], threads=job["threads"])
    sample = ("Who?", "One sentence.") if isinstance(model, Reader) else "One sentence."
    names = [output.name for output in model.session.get_outputs()]

    def run(ids, mask):
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        model.session.run(names, inputs)

    return run, lambda: next(iter(model([sample]))), model.config["vocab_size"]


def _open_torch(job):
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    if job["name"] in TORCH_SIZES:
        config, model, sizes = TORCH_SIZES[job["name"]]
        net = getattr(transformers, model)(getattr(transformers, config)(**sizes))
    else:
        net = transformers.AutoModel.from_pretrained(job["name"], trust_remote_code=True)
    net = net.eval()

    def run(ids, mask):
        with torch.inference_mode():
            net(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))

    first = lambda: run(np.full((1, 5), 5), np.ones((1, 5), np.int64))  # noqa: E731
    return run, first, net.config.vocab_size


def _time(run: Callable, words: int, batch: int, length: int, seconds: float) -> dict[str, float]:
    """Returns milliseconds of a call, and rows a second."""
    random = np.random.default_rng(0)
    ids = random.integers(0, words, (batch, length))
    mask = np.ones_like(ids)

    def call() -> float:
        start = time.perf_counter()
        run(ids, mask)
        return time.perf_counter() - start

    if call() < seconds:  # the first call is not timed, and of fast models neither is the second
        call()
    times = [call()]
    # Five calls at least, but of slow ones (seconds each) no more than a few.
    while len(times) < 1_000 and sum(times) < seconds * (1 if len(times) >= 5 else 10):
        times.append(call())
    return {
        "median_ms": float(np.median(times)) * 1e3,
        "p95_ms": float(np.percentile(times, 95)) * 1e3,
        "rows_per_second": batch / float(np.median(times)),
        "calls": len(times),
    }


if __name__ == "__main__":
    main()
