# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edad_jax.models.block_copy import copy_blocks
from edad_jax.models.config import ExtensionConfig
from edad_jax.models.exbert import ExBert
from tests.tiny_models import random_params, tiny_batch, tiny_exbert_config

WHOLE = ExtensionConfig(hidden_size=24, intermediate_size=40, num_attention_heads=3)
NARROW = ExtensionConfig(hidden_size=12, intermediate_size=16, num_attention_heads=3)


def net_with(extension):
    return ExBert(dataclasses.replace(tiny_exbert_config(), extension=extension), jnp.float32)


def last_hidden(model, params, batch, share):
    """Returns what the net says where the original has this share of every block."""
    gates = {
        name: {
            "kernel": np.zeros_like(gate["kernel"]),
            "bias": np.full_like(gate["bias"], np.log(share / (1 - share))),
        }
        for name, gate in params["extension"].items()
        if name.startswith("gates_")
    }
    params = params | {"extension": params["extension"] | gates}
    output = model.apply(
        {"params": params}, batch.ids_bt, batch.segments_bt, batch.mask_bt, method="encode"
    )
    return np.asarray(output.last_hidden_btd)[np.asarray(batch.mask_bt)]


def text(seed, rows=40):
    """Returns rows of all lengths from 3 to 20 pieces."""
    batches = [tiny_batch(68, rows=9, length=20, seed=100 * seed + each) for each in range(rows)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


def assert_copies_answer_as_the_original(model, params):
    params = copy_blocks(model, params, text(1))
    batch = tiny_batch(68)
    original, copy = (last_hidden(model, params, batch, share) for share in (1 - 1e-6, 1e-6))
    np.testing.assert_allclose(copy, original, atol=1e-3)


def test_a_copy_as_large_as_the_original_answers_as_it_does():
    model = net_with(WHOLE)
    assert_copies_answer_as_the_original(model, random_params(model.config))


def test_a_narrow_copy_of_blocks_that_use_no_more_is_exact():
    model = net_with(NARROW)
    params = random_params(model.config)
    for name, block in params["base"].items():
        if name.startswith("layers_"):
            for part in ("query", "key", "value"):  # half of each head's eight numbers
                linear = block["attention"][part]
                off = np.arange(24) % 8 >= 4
                linear["kernel"], linear["bias"] = (
                    np.where(off, 0, np.asarray(linear[leaf])) for leaf in ("kernel", "bias")
                )
            unused = np.arange(40) % 5 > 1  # 16 units of 40 are left
            kernel = np.asarray(block["output"]["kernel"])
            block["output"]["kernel"] = np.where(unused[:, None], 0, kernel)
    assert_copies_answer_as_the_original(model, params)


def test_on_other_text_a_narrow_copy_is_nearer_to_the_original_than_a_random_block():
    model = net_with(NARROW)
    params = random_params(model.config)
    copied = copy_blocks(model, params, text(1))
    batch = text(2)
    original = last_hidden(model, params, batch, 1 - 1e-6)

    def distance(params, share):
        return np.square(last_hidden(model, params, batch, share) - original).mean()

    assert distance(copied, 0.5) < 0.1 * distance(params, 0.5)
    assert distance(copied, 1e-6) < 0.1 * distance(params, 1e-6)


def test_only_blocks_are_copied():
    model = net_with(NARROW)
    params = random_params(model.config)
    copied = copy_blocks(model, params, text(1, rows=2))
    for part in ("word", "gates_0", "gates_1"):
        assert copied["extension"][part] is params["extension"][part]
    assert jax.tree.structure(copied) == jax.tree.structure(params)
    assert jax.tree.map(jnp.shape, copied) == jax.tree.map(jnp.shape, params)
    no_blocks = ExBert(tiny_exbert_config(blocks=False), jnp.float32)
    params = random_params(no_blocks.config)
    assert copy_blocks(no_blocks, params, text(1, rows=1)) is params


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 4}, "num_attention_heads=4 and the original has 3"),
        ({"hidden_size": 48}, "hidden_size=48 is more than the original's 24"),
        ({"intermediate_size": 41}, "intermediate_size=41 is more than the original's 40"),
    ],
)
def test_an_extension_that_cannot_be_a_copy_is_an_error(changes, message):
    model = net_with(dataclasses.replace(NARROW, **changes))
    with pytest.raises(ValueError, match=message):
        copy_blocks(model, {}, text(1, rows=1))
