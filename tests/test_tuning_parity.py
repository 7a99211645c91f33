# SPDX-License-Identifier: Apache-2.0
"""Our fine-tuning against torch's: the same net, rows, loss and optimiser, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.finetune import make_optimizer
from edad_jax.models import convert
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier
from edad_jax.parallel import Parallel
from edad_jax.tasks import tuning
from edad_jax.types import TaskBatch
from tests.tiny_models import random_params, tiny_exbert_config
from tests.tiny_tasks import tiny_tuning

STEPS, ROWS, LENGTH, CLASSES = 12, 8, 10, 3


def test_twelve_steps_of_tagging_give_torchs_losses():
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertForTokenClassification

    config = tiny_exbert_config(
        blocks=False, added_words=0, initializer_range=0.02,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    random = np.random.default_rng(0)
    head = {
        "kernel": random.normal(0, 0.02, (config.base.hidden_size, CLASSES)).astype(np.float32),
        "bias": np.zeros(CLASSES, np.float32),
    }
    params = {"base": random_params(config)["base"], "classifier": {"dense": head}}

    theirs = BertForTokenClassification(BertConfig(num_labels=CLASSES, **vars(config.base)))
    tensors = convert.to_torch_names(params, config, labels=CLASSES)
    missing = theirs.load_state_dict(
        {name: torch.tensor(tensor) for name, tensor in tensors.items()}, strict=False
    )
    assert not missing.unexpected_keys and not [
        key for key in missing.missing_keys if "position_ids" not in key
    ]
    section = tiny_tuning("tagging", "model", "data").optimizer
    undecayed = [p for n, p in theirs.named_parameters() if "LayerNorm" in n or "bias" in n]
    decayed = [p for n, p in theirs.named_parameters() if not ("LayerNorm" in n or "bias" in n)]
    adam = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": section.weight_decay},
         {"params": undecayed, "weight_decay": 0.0}],
        lr=1.0, betas=(section.b1, section.b2), eps=section.eps,
    )  # fmt: skip
    warm = max(1, round(section.warmup_share * STEPS))
    rates = [
        section.learning_rate * min((step + 1) / warm, 1.0, (STEPS - step) / (STEPS - warm))
        for step in range(STEPS)
    ]

    net = tuning.TaskNet(
        "tagging", ExBert(config, jnp.float32), Classifier(config.base, CLASSES, jnp.float32)
    )
    settings = tuning.TuningSettings(make_optimizer(section, STEPS), "loop")
    parallel = Parallel("pmap")
    step = parallel.compile(
        tuning.make_tuning_step(net, settings), replicated_arguments=1, donate=False
    )
    stacked = jax.tree.map(lambda x: np.asarray(x)[None], params)
    state = parallel.replicate(tuning.begin_tuning(stacked, [0], settings))
    theirs.train()
    for number in range(STEPS):
        ids = random.integers(1, config.vocab_size, (ROWS, LENGTH)).astype(np.int32)
        mask = np.arange(LENGTH)[None] < random.integers(3, LENGTH + 1, (ROWS, 1))
        labels = np.where(mask, random.integers(-1, CLASSES, (ROWS, LENGTH)), -1).astype(np.int32)
        batch = TaskBatch(ids[:, None], mask[:, None], labels[:, None], None)
        state, metrics = step(state, parallel.shard_batch(batch))
        output = theirs(
            input_ids=torch.tensor(ids).long(),
            attention_mask=torch.tensor(mask).long(),
            labels=torch.tensor(np.where(labels < 0, -100, labels)).long(),
        )
        np.testing.assert_allclose(float(metrics["loss"][0]), output.loss.item(), rtol=2e-4)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), section.clip_norm)
        for group in adam.param_groups:
            group["lr"] = rates[number]
        adam.step()
        adam.zero_grad()
    assert float(metrics["loss"][0]) < 2.0  # and it has not blown up on the way
