# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from edad_jax.training.optimizer import OptimizerSettings, skip_update


def optimizer(name, rate=0.1, *, clip_by="net", **changes):
    rate = rate if callable(rate) else optax.constant_schedule(rate)
    return OptimizerSettings(name, clip_by=clip_by, **changes).build(rate)


def update_once(name, gradients, params, **changes):
    tx = optimizer(name, **changes)
    updates, _ = tx.update(gradients, tx.init(params), params)
    return updates


def test_bert_adam_has_no_bias_correction_and_decouples_decay():
    params = {"dense": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}}
    gradients = {"dense": {"kernel": jnp.array([0.3]), "bias": jnp.array([0.3])}}
    updates = update_once("bert_adam", gradients, params)["dense"]
    step = 0.1 * 0.3 / (np.sqrt(0.001 * 0.3**2) + 1e-6)  # m / (sqrt(v) + eps) after one step
    np.testing.assert_allclose(updates["kernel"], -0.1 * (step + 0.01 * 2.0), rtol=1e-5)
    np.testing.assert_allclose(updates["bias"], -0.1 * step, rtol=1e-5)  # biases do not decay


def test_norms_do_not_decay():
    params = {"norm": {"scale": jnp.array([2.0])}}
    updates = update_once("bert_adam", {"norm": {"scale": jnp.array([0.0])}}, params)
    np.testing.assert_array_equal(updates["norm"]["scale"], 0.0)


def test_extension_blocks_may_learn_by_a_part_of_the_rate():
    leaf = {"kernel": jnp.array([2.0])}
    params = {
        "extension": {"layers_0": leaf, "gates_0": leaf, "word": {"embedding": jnp.array([2.0])}},
        "mlm": leaf,
    }
    gradients = jax.tree.map(lambda x: 0.3 * jnp.ones_like(x), params)
    rate = optax.constant_schedule(0.1)
    whole, part, none = (
        OptimizerSettings("adamw").build(rate, block_ratio=ratio) for ratio in (1.0, 0.25, 0.0)
    )
    all_of_it, some, still = (
        tx.update(gradients, tx.init(params), params)[0] for tx in (whole, part, none)
    )
    for name in ("layers_0", "gates_0"):
        whole_update = all_of_it["extension"][name]["kernel"]
        np.testing.assert_allclose(some["extension"][name]["kernel"], 0.25 * whole_update)
        np.testing.assert_array_equal(still["extension"][name]["kernel"], 0.0)
    np.testing.assert_array_equal(some["mlm"]["kernel"], all_of_it["mlm"]["kernel"])
    np.testing.assert_array_equal(
        some["extension"]["word"]["embedding"], all_of_it["extension"]["word"]["embedding"]
    )


def test_adamw_corrects_the_bias():
    params = {"kernel": jnp.array([0.0])}
    updates = update_once("adamw", {"kernel": jnp.array([0.3])}, params)
    np.testing.assert_allclose(updates["kernel"], -0.1, rtol=1e-4)  # a first step has size 1


def test_clipping_by_net_and_by_tensor():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    gradients = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.3, 0.4])}
    plain = {"b1": 0.0, "b2": 0.0, "eps": 1e3, "weight_decay": 0.0}  # update ~ gradient / 1000
    by_tensor = update_once("bert_adam", gradients, params, clip_by="tensor", **plain)
    np.testing.assert_allclose(by_tensor["a"], -1e-4 * np.array([0.6, 0.8]), rtol=2e-3)
    np.testing.assert_allclose(by_tensor["b"], -1e-4 * np.array([0.3, 0.4]), rtol=2e-3)
    by_net = update_once("bert_adam", gradients, params, clip_by="net", **plain)
    norm = np.hypot(5.0, 0.5)
    np.testing.assert_allclose(by_net["a"], -1e-4 * np.array([3, 4]) / norm, rtol=2e-3)
    np.testing.assert_allclose(by_net["b"], -1e-4 * np.array([0.3, 0.4]) / norm, rtol=2e-3)


@pytest.mark.parametrize(
    ("name", "value"), [("clip_norm", -1.0), ("clip_norm", 0.0), ("b1", 1.0), ("weight_decay", -1)]
)
def test_numbers_that_would_climb_or_stand_still_are_errors(name, value):
    with pytest.raises(ValueError, match=f"config.optimizer.{name}={value}, expected "):
        OptimizerSettings(**{name: value})
    with pytest.raises(ValueError, match="got a learning rate of -0.1, expected 0 or more"):
        OptimizerSettings().learning_rate(-0.1, 10)


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="'adam' is not one of bert_adam, adamw"):
        OptimizerSettings("adam")
    with pytest.raises(ValueError, match="'all' is not one of net, tensor"):
        OptimizerSettings("adamw", clip_by="all")


def test_a_skipped_update_moves_the_learning_rate_on_and_not_the_bias_correction():
    """Three steps, the second skipped; Adam without decay, its moments by hand."""
    tx = optimizer("adamw", lambda step: 0.1 * (step + 1), weight_decay=0.0)
    params = {"kernel": jnp.array([2.0])}
    _, opt_state = tx.update({"kernel": jnp.array([0.3])}, tx.init(params), params)
    opt_state = skip_update(opt_state)
    updates, _ = tx.update({"kernel": jnp.array([0.5])}, opt_state, params)
    mean = (0.9 * 0.1 * 0.3 + 0.1 * 0.5) / (1 - 0.9**2)
    square = (0.999 * 0.001 * 0.3**2 + 0.001 * 0.5**2) / (1 - 0.999**2)
    expected = -0.1 * 3 * mean / (np.sqrt(square) + 1e-6)  # the rate of the third step
    np.testing.assert_allclose(updates["kernel"], [expected], rtol=1e-4)
