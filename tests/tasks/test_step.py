# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from edad_jax.machine import compiling_for
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier
from edad_jax.tasks.step import (
    OVER_SEEDS,
    TaskNet,
    TuningSettings,
    begin_tuning,
    classification_loss,
    group_seeds,
    make_tuning_step,
)
from edad_jax.training.parallel import Parallel
from edad_jax.types import TaskBatch
from tests.tiny_models import random_params, tiny_exbert_config

CLASSES = 3
CONFIG = tiny_exbert_config(blocks=False, initializer_range=0.02, num_hidden_layers=1)


def net(task="tagging"):
    return TaskNet(task, ExBert(CONFIG, jnp.float32), Classifier(CONFIG.base, CLASSES, jnp.float32))


def seed_params(task, seed):
    """Returns the encoder's parameters, the same for all seeds, and a classifier of its own."""
    params = random_params(CONFIG)
    kernel = np.random.default_rng(seed).normal(0, 0.1, (CONFIG.base.hidden_size, CLASSES))
    head = {"dense": {"kernel": kernel.astype(np.float32), "bias": np.zeros(CLASSES, np.float32)}}
    return {part: params[part] for part in net(task).parts} | {"classifier": head}


def stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def seed_batch(seed, task="tagging", rows=8, length=10, taught=False):
    random = np.random.default_rng(seed)
    ids = random.integers(1, CONFIG.vocab_size, (rows, length)).astype(np.int32)
    mask = np.arange(length)[None] < random.integers(3, length + 1, (rows, 1))
    positions = length if task == "tagging" else 1
    labels = random.integers(-1, CLASSES, (rows, positions)).astype(np.int32)
    labels = np.where(mask[:, :positions], labels, -1).astype(np.int32)
    soft = random.normal(size=(rows, positions, CLASSES)).astype(np.float32) if taught else None
    return TaskBatch(ids * mask, mask, labels, soft)


def run(seeds, *, task="tagging", over="loop", steps=3, params=None, **settings):
    # Not Adam, which scales up the rounding in gradients that are 0, those of the keys' biases.
    settings = TuningSettings(optax.sgd(0.1), **settings)
    parallel = Parallel("pmap")
    step = parallel.compile(
        make_tuning_step(net(task), settings), replicated_arguments=1, donate=False
    )
    params = params or [seed_params(task, seed) for seed in seeds]
    ends, columns = [], []
    for group in group_seeds(len(seeds), over):
        mine = list(seeds[group])
        state = parallel.replicate(begin_tuning(stack(params[group]), mine, settings))
        losses = []
        for number in range(steps):
            batches = [
                seed_batch((seed, number), task, taught=bool(settings.soft_weight)) for seed in mine
            ]
            batch = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *batches)
            state, metrics = step(state, parallel.shard_batch(batch))
            losses.append(np.asarray(metrics["loss"]))
        ends.append(jax.device_get(state.params))
        columns.append(np.array(losses))
    together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *ends)
    return together, np.concatenate(columns, axis=1)


@pytest.mark.parametrize(
    ("task", "over"), [("tagging", "vmap"), ("tagging", "loop"), ("classification", "vmap")]
)
def test_seeds_together_give_the_same_as_one_by_one(task, over):
    together, losses = run((3, 5, 9), task=task, over=over)
    for place, seed in enumerate((3, 5, 9)):
        alone, loss = run((seed,), task=task)
        np.testing.assert_allclose(losses[:, place], loss[:, 0], rtol=2e-5)
        for mine, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(mine[place], theirs[0], atol=2e-4)


def test_seeds_are_grouped_all_together_or_each_alone():
    assert group_seeds(3, "vmap") == [slice(0, 3)]
    assert group_seeds(3, "loop") == [slice(0, 1), slice(1, 2), slice(2, 3)]


@pytest.mark.parametrize("over", OVER_SEEDS)
def test_a_seed_that_is_not_finite_leaves_the_others_alone(over):
    trees = [seed_params("tagging", seed) for seed in (0, 1, 2)]
    trees[1]["classifier"]["dense"]["kernel"] = np.full_like(
        trees[1]["classifier"]["dense"]["kernel"], np.nan
    )
    _, broken = run((0, 1, 2), over=over, params=trees)
    _, sound = run((0, 1, 2), over=over)
    assert np.isnan(broken[:, 1]).all()
    np.testing.assert_allclose(broken[:, [0, 2]], sound[:, [0, 2]], rtol=1e-6)


def test_the_loss_is_the_mean_over_labelled_positions_of_hard_and_soft_cross_entropy():
    batch = seed_batch(4, taught=True)
    logits = np.random.default_rng(1).normal(size=batch.teacher_bnc.shape).astype(np.float32)
    settings = TuningSettings(optax.sgd(1.0), temperature=2.0, soft_weight=0.25)
    got = classification_loss(jnp.asarray(logits), batch, settings)

    def log_softmax(x):
        return x - np.log(np.exp(x).sum())

    expected = 0.0
    for row, place in np.argwhere(batch.labels_bn >= 0):
        teacher = np.exp(log_softmax(batch.teacher_bnc[row, place] / 2.0))
        soft = -(teacher * log_softmax(logits[row, place] / 2.0)).sum()
        hard = -log_softmax(logits[row, place])[batch.labels_bn[row, place]]
        expected += 0.75 * hard + 0.25 * 4.0 * soft
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_only_soft_labels_ignore_the_true_ones():
    batch = seed_batch(4, taught=True)
    logits = jnp.zeros(batch.teacher_bnc.shape)
    settings = TuningSettings(optax.sgd(1.0), soft_weight=1.0)
    other = batch._replace(labels_bn=np.where(batch.labels_bn >= 0, 0, -1))
    np.testing.assert_allclose(
        classification_loss(logits, batch, settings),
        classification_loss(logits, other, settings),
    )


@pytest.mark.parametrize(("backend", "platform"), [("gpu", "cuda"), ("tpu", "tpu")])
def test_a_step_of_two_seeds_lowers_for_accelerators(backend, platform):
    """Without a device, as in distillation/test_lowering.py."""
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    config = tiny_exbert_config(num_hidden_layers=1, **rates)
    trained = TaskNet(
        "tagging", ExBert(config, jnp.bfloat16), Classifier(config.base, CLASSES, jnp.float32)
    )
    settings = TuningSettings(optax.adam(1e-3))
    params = random_params(config)
    head = {"classifier": seed_params("tagging", 0)["classifier"]}
    params = {part: params[part] for part in trained.parts} | head
    batches = [seed_batch(seed) for seed in (0, 1)]
    with compiling_for(backend):
        step = Parallel("shard_map", jax.devices()[:1]).compile(
            make_tuning_step(trained, settings), replicated_arguments=1, donate=True
        )
        exported = jax.export.export(step, platforms=[platform])(
            begin_tuning(stack([params, params]), [0, 1], settings),
            jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *batches),
        )
    lines = exported.mlir_module().splitlines()
    products = [line for line in lines if "stablehlo.dot_general" in line]
    assert sum("xbf16>, tensor" in line for line in products) > 20
    # In float32, exactly: the gates, whose width is 1, and the classifier.
    wide = [line for line in products if "xf32>, tensor" in line]
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in wide)
    assert all("x1xf32" in line or f"x{CLASSES}xf32" in line for line in wide)
