# SPDX-License-Identifier: Apache-2.0
r"""A peer for launch/finetune.py: transformers and torch, with the same settings on the same data.

    pip install torch==2.13.0
    python benchmarks/torch_finetune.py --config configs/ner.py --config.model=/models/e5-small \
        --config.data=/data/NCBI-disease-IOB --config.num_seeds=3 --config.epochs=2

Takes the flags of launch/finetune.py (tagging, float32, no teacher). Shared with ours are the
readers, the rows and the scorer; the net, the loss, the optimiser, the order of the rows and the
classifier's random start are torch's own. So the scores agree within the seeds' interval, no more.
"""

import time

import numpy as np
import torch
from ml_collections import config_flags
from transformers import AutoModelForTokenClassification, get_scheduler

from edad_jax.command import run_command
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.tasks.result import show_interval
from edad_jax.tasks.rows import NO_LABEL, name_labels
from edad_jax.tasks.scores import mean_interval
from edad_jax.tasks.setup import prepare_examples, run_seeds

CONFIG = config_flags.DEFINE_config_file("config", None, "As for launch/finetune.py.")


def main():
    config = CONFIG.value
    prepared = prepare_examples(config, load_tokenizer(config.model, option="--config.model=DIR"))
    scores, start = [], time.perf_counter()
    for seed in run_seeds(config):
        scores.append(_one_seed(config, prepared, seed))
        print(f"seed {seed}: test F1 {scores[-1]:.2%}", flush=True)
    print(
        f"torch {torch.__version__}: entity F1 {show_interval(mean_interval(scores)._asdict())}, "
        f"{(time.perf_counter() - start) / len(scores):.0f} s a seed"
    )


def _one_seed(config, prepared, seed):
    """Returns the test split's entity F1 after the epoch that does best on the validation split."""
    torch.manual_seed(seed)
    rates = {
        name: config[name]
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
        if config[name] is not None
    }
    model = AutoModelForTokenClassification.from_pretrained(
        config.model, num_labels=len(prepared.labels), **rates
    )
    settings = config.optimizer
    plain = [p for name, p in model.named_parameters() if "LayerNorm" in name or "bias" in name]
    decayed = [
        p for name, p in model.named_parameters() if not ("LayerNorm" in name or "bias" in name)
    ]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(settings.b1, settings.b2),
        eps=settings.eps,
    )
    rows = prepared.rows["train"]
    steps = config.epochs * -(-len(rows) // config.batch_size)
    warm = round(settings.warmup_ratio * steps)
    schedule = get_scheduler("linear", optimizer, warm, steps)
    random = np.random.default_rng([7, seed])
    best, best_params = -1.0, None
    for _ in range(config.epochs):
        model.train()
        order = random.permutation(len(rows))
        for begin in range(0, len(rows), config.batch_size):
            ids, mask, labels = _batch(rows, order[begin : begin + config.batch_size])
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        score = prepared.task.quick_score(
            prepared.examples["validation"],
            _predict(model, prepared, "validation", config.batch_size),
        )
        if score > best:
            best = score
            best_params = {name: p.detach().clone() for name, p in model.state_dict().items()}
    model.load_state_dict(best_params)
    predicted = _predict(model, prepared, "test", config.batch_size)
    return prepared.task.score(
        prepared.examples["test"], predicted, prepared.rows["test"], prepared.labels
    )["f1"]


@torch.no_grad()
def _predict(model, prepared, split, batch_size):
    model.eval()
    rows = prepared.rows[split]
    logits = [None] * len(rows)
    order = np.argsort([len(ids) for ids in rows.ids], kind="stable")
    for begin in range(0, len(order), batch_size):
        numbers = order[begin : begin + batch_size]
        ids, mask, _ = _batch(rows, numbers)
        for number, row in zip(
            numbers, model(input_ids=ids, attention_mask=mask).logits.numpy(), strict=True
        ):
            logits[number] = row[: len(rows.labels[number])]
    return name_labels(rows, logits, prepared.labels)


def _batch(rows, numbers):
    """Returns ids, mask and labels of some rows, padded to the longest."""
    length = max(len(rows.ids[number]) for number in numbers)
    ids, mask = np.zeros((2, len(numbers), length), np.int64)
    labels = np.full((len(numbers), length), -100, np.int64)
    for place, number in enumerate(numbers):
        size = len(rows.ids[number])
        ids[place, :size], mask[place, :size] = rows.ids[number], 1
        known = np.asarray(rows.labels[number])
        labels[place, : len(known)] = np.where(known == NO_LABEL, -100, known)
    return tuple(map(torch.tensor, (ids, mask, labels)))


if __name__ == "__main__":
    run_command(main, required=["config"])
