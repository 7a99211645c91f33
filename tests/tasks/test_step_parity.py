# SPDX-License-Identifier: Apache-2.0
"""Our fine-tuning against torch's: the same net, rows, loss and optimiser, step by step.

tests/golden/tuning_losses.json holds torch's losses, for machines without torch; made anew by
    python -m tests.tasks.test_step_parity
That they are torch's, tests/models/test_torch_models.py sees where torch is installed.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

from edad_jax.models import convert
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier
from edad_jax.tasks.step import TaskNet, TuningSettings, begin_tuning, make_tuning_step
from edad_jax.tasks.train import make_optimizer
from edad_jax.training.parallel import Parallel
from edad_jax.types import TaskBatch
from tests.tiny_models import GOLDEN, random_params, tiny_exbert_config
from tests.tiny_tasks import tiny_tuning

STEPS, ROWS, LENGTH, CLASSES = 12, 8, 10, 3
FILE = GOLDEN / "tuning_losses.json"
CONFIG = tiny_exbert_config(
    blocks=False,
    added_words=0,
    initializer_range=0.02,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
OPTIMIZER = tiny_tuning("tagging", "model", "data").optimizer


def make_params():
    kernel = np.random.default_rng(0).normal(0, 0.02, (CONFIG.base.hidden_size, CLASSES))
    head = {"kernel": kernel.astype(np.float32), "bias": np.zeros(CLASSES, np.float32)}
    return {"base": random_params(CONFIG)["base"], "classifier": {"dense": head}}


def make_batches():
    """Yields (ids, mask, labels) of every step; label -1 is none."""
    random = np.random.default_rng(1)
    for _ in range(STEPS):
        ids = random.integers(1, CONFIG.vocab_size, (ROWS, LENGTH)).astype(np.int32)
        mask = np.arange(LENGTH)[None] < random.integers(3, LENGTH + 1, (ROWS, 1))
        labels = np.where(mask, random.integers(-1, CLASSES, (ROWS, LENGTH)), -1)
        yield ids, mask, labels.astype(np.int32)


def our_losses():
    net = TaskNet(
        "tagging", ExBert(CONFIG, jnp.float32), Classifier(CONFIG.base, CLASSES, jnp.float32)
    )
    settings = TuningSettings(make_optimizer(OPTIMIZER, STEPS))
    parallel = Parallel("pmap")
    step = parallel.compile(make_tuning_step(net, settings), replicated_arguments=1, donate=False)
    stacked = jax.tree.map(lambda x: np.asarray(x)[None], make_params())
    state = parallel.replicate(begin_tuning(stacked, [0], settings))
    losses = []
    for ids, mask, labels in make_batches():
        batch = TaskBatch(ids[:, None], mask[:, None], labels[:, None], None)
        state, metrics = step(state, parallel.shard_batch(batch))
        losses.append(float(metrics["loss"][0]))
    return losses


def torch_losses():
    import torch
    from transformers import BertConfig, BertForTokenClassification

    theirs = BertForTokenClassification(BertConfig(num_labels=CLASSES, **vars(CONFIG.base)))
    tensors = convert.to_torch_names(make_params(), CONFIG, labels=CLASSES)
    found = theirs.load_state_dict(
        {name: torch.tensor(tensor) for name, tensor in tensors.items()}, strict=False
    )
    assert not found.unexpected_keys
    assert all("position_ids" in key for key in found.missing_keys)
    groups = ([], [])  # decayed, and not
    for name, parameter in theirs.named_parameters():
        groups["LayerNorm" in name or "bias" in name].append(parameter)
    adam = torch.optim.AdamW(
        [
            {"params": groups[0], "weight_decay": OPTIMIZER.weight_decay},
            {"params": groups[1], "weight_decay": 0.0},
        ],
        lr=1.0,
        betas=(OPTIMIZER.b1, OPTIMIZER.b2),
        eps=OPTIMIZER.eps,
    )
    warm = max(1, round(OPTIMIZER.warmup_ratio * STEPS))
    theirs.train()
    losses = []
    for number, (ids, mask, labels) in enumerate(make_batches()):
        output = theirs(
            input_ids=torch.tensor(ids).long(),
            attention_mask=torch.tensor(mask).long(),
            labels=torch.tensor(np.where(labels < 0, -100, labels)).long(),
        )
        losses.append(output.loss.item())
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), OPTIMIZER.clip_norm)
        share = min((number + 1) / warm, (STEPS - number) / (STEPS - warm))
        for group in adam.param_groups:
            group["lr"] = OPTIMIZER.learning_rate * min(share, 1.0)
        adam.step()
        adam.zero_grad()
    return losses


def test_twelve_steps_of_tagging_give_torchs_losses():
    ours, golden = our_losses(), json.loads(FILE.read_text(encoding="utf-8"))
    np.testing.assert_allclose(ours, golden, rtol=2e-4)
    assert abs(ours[-1] - ours[0]) > 0.02  # the steps have moved the net


if __name__ == "__main__":
    FILE.write_text(json.dumps(torch_losses()) + "\n", encoding="utf-8")
