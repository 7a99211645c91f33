# SPDX-License-Identifier: Apache-2.0
"""Times one model in a process of its own: latency, throughput, memory, cold start.

    python -m benchmarks.timing '{"kind": "onnx", "source": "runs/ner/onnx-int8", ...}'

Prints one line of JSON when the model has answered for the first time, then one for each line that
it reads: {"batch": 1, "length": 128, "seconds": 0.5, "is_first": true}. So `benchmarks.turns` lets
several take turns. The process imports what this model needs and nothing else, so that its memory
and its start are the model's own; with "onnx" that is numpy, onnxruntime and tokenizers.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable

import numpy as np

from edad_jax.machine import peak_resident_bytes

# Module, configuration and model; random weights take as long as others.
TORCH_SIZES = {
    "bert-base": ("transformers", "BertConfig", "BertModel", {}),
    "distilbert": ("transformers", "DistilBertConfig", "DistilBertModel", {}),
    "edad-student": (
        "edad_jax.export.modeling_exbert",
        "ExBertConfig",
        "ExBertModel",
        {
            "num_hidden_layers": 4,
            "hidden_size": 312,
            "intermediate_size": 1_200,
            "vocab_size": 48_180,
            "extension_vocab_size": 17_658,
            "extension_hidden_size": 96,
            "extension_intermediate_size": 400,
            "has_pooler": False,
        },
    ),
}


def main() -> None:
    """Reads the model from the command line and the cases from standard input, until it ends."""
    job = json.loads(sys.argv[1])
    run, first, words = {"onnx": _open_onnx, "torch": _open_torch}[job["kind"]](job)
    first()
    ready = {"cold_start": time.time() - job["started"]}
    print(json.dumps(ready | {"memory_mb": peak_resident_bytes() / 1e6}), flush=True)
    for line in sys.stdin:
        times = _time(run, words, **json.loads(line))
        answer = {"times_ms": times, "peak_memory_mb": peak_resident_bytes() / 1e6}
        print(json.dumps(answer), flush=True)


def _open_onnx(job):
    from edad_jax.runtime.models import QuestionAnswerer, open_model

    model = open_model(job["source"], threads=job["threads"])
    sample = ("Who?", "One sentence.") if isinstance(model, QuestionAnswerer) else "One sentence."
    names = [output.name for output in model.session.get_outputs()]

    def run(ids, mask):
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        model.session.run(names, inputs)

    return run, lambda: next(iter(model([sample]))), model.config["vocab_size"]


def _open_torch(job):
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    if job["source"] in TORCH_SIZES:
        module, config, model, sizes = TORCH_SIZES[job["source"]]
        classes = importlib.import_module(module)
        net = getattr(classes, model)(getattr(classes, config)(**sizes))
    else:
        net = transformers.AutoModel.from_pretrained(job["source"], trust_remote_code=True)
    net = net.eval()

    def run(ids, mask):
        with torch.inference_mode():
            net(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))

    first = lambda: run(np.full((1, 5), 5), np.ones((1, 5), np.int64))  # noqa: E731
    return run, first, net.config.vocab_size


def _time(
    run: Callable, words: int, *, batch: int, length: int, seconds: float, is_first: bool
) -> list[float]:
    """Returns milliseconds of each call; at least one, and no more than `seconds` if they are fast.

    The first call is not timed: another model had the caches before, and of fast models the second
    is slow too. But a slow one is spared the repetition once it has been called for this case.
    """
    random = np.random.default_rng(0)
    ids = random.integers(0, words, (batch, length))
    mask = np.ones_like(ids)

    def call() -> float:
        start = time.perf_counter()
        run(ids, mask)
        return time.perf_counter() - start

    warm = call()
    if warm >= seconds and not is_first:
        return [1e3 * warm]
    if warm < seconds:
        call()
    times = [call()]
    while len(times) < 1_000 and sum(times) < seconds:
        times.append(call())
    return [1e3 * each for each in times]


if __name__ == "__main__":
    main()
