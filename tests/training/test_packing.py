# SPDX-License-Identifier: Apache-2.0
"""Tensors in one array: the same tensors, and the same updates as of a tree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from edad_jax.training import state
from edad_jax.training.optimizer import CLIPPING, OPTIMIZERS, OptimizerSettings
from edad_jax.training.packing import WIDTH, Packing


def tree(seed=0, scale=1.0):
    random = np.random.default_rng(seed)

    def normal(*shape):
        return (scale * random.standard_normal(shape)).astype(np.float32)

    return {
        "norm": {"scale": normal(40), "bias": normal(40)},
        "word": {"embedding": normal(61, 40)},
        "layers_0": {"kernel": normal(40, 60), "bias": normal(60)},
        "layers_1": {"kernel": normal(40, 60), "bias": normal(60)},
        "gate": {"kernel": normal(40, 1), "bias": normal(1)},
    }


def assert_same(ours, theirs, **tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


def test_what_is_packed_is_unpacked_again_and_every_tensor_begins_a_row():
    packing = Packing.of(tree())
    packed = packing.pack(tree())
    assert_same(packed.unpack(), tree(), rtol=0)
    assert packed.rows.shape == (sum(packing.rows), WIDTH)
    assert sorted(packing.rows) == list(packing.rows)
    assert float(np.abs(packed.rows).sum()) == pytest.approx(
        sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(tree())), rel=1e-5
    )
    kernel = packing.paths.index(("layers_1", "kernel"))
    first = sum(packing.rows[:kernel])
    np.testing.assert_array_equal(packed.rows[first, :60], tree()["layers_1"]["kernel"][0])


def test_norms_and_factors_are_by_tensor():
    packed = Packing.of(tree()).pack(tree())
    leaves = {
        tuple(key.key for key in path): leaf for path, leaf in jax.tree.leaves_with_path(tree())
    }
    expected = [np.square(leaves[path]).sum() for path in packed.packing.paths]
    np.testing.assert_allclose(packed.squared_norms(), expected, rtol=1e-5)
    factors = np.arange(1, len(expected) + 1, dtype=np.float32)
    scaled = packed.scale(factors).unpack()
    for factor, path in zip(factors, packed.packing.paths, strict=True):
        found = scaled
        for key in path:
            found = found[key]
        np.testing.assert_allclose(found, factor * leaves[path], rtol=1e-6)


@pytest.mark.parametrize("clip_by", CLIPPING)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("block_ratio", [1.0, 0.3])
def test_an_update_of_packed_tensors_is_that_of_the_tree(name, clip_by, block_ratio):
    optimizer = OptimizerSettings(name, clip_by=clip_by, weight_decay=0.1, eps=1e-3).build(
        optax.constant_schedule(0.1), block_ratio=block_ratio
    )
    packing = Packing.of(tree())

    def run(pack):
        params = pack(tree())
        opt_state = optimizer.init(params)
        for step in range(3):
            # Some norms above 1, so that clipping has a part, and some below.
            gradient = pack(tree(seed=step + 1, scale=0.1))
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            params = optax.apply_updates(params, updates)
        return state.unpack((params, opt_state[1]))

    assert_same(run(packing.pack), run(lambda tree: tree), rtol=1e-5, atol=1e-6)


def test_a_state_is_packed_again_as_it_was():
    optimizer = OptimizerSettings().build(optax.constant_schedule(0.1))
    begun = state.begin({"student": tree()}, {"student": optimizer})
    # The parameters and both moments of a net, and two counts.
    assert len(jax.tree.leaves(begun)) == 3 + 2
    unpacked = state.unpack(begun)
    assert_same(unpacked.params["student"], tree(), rtol=0)
    again = state.pack_like(begun, unpacked)
    assert jax.tree.structure(again) == jax.tree.structure(begun)
    assert_same(again, begun, rtol=0)


def test_a_net_of_which_nothing_is_trained_is_an_empty_array():
    packed = Packing.of({}).pack({})
    assert packed.unpack() == {}
    assert packed.squared_norms().shape == (0,)
    assert packed.scale(jnp.zeros(0)).rows.shape == (0, WIDTH)
