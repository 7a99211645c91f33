# SPDX-License-Identifier: Apache-2.0
"""The tiny runs of which torch's numbers lie in tests/golden/step, and how ours runs them.

No torch here. tests/golden/make_step_golden.py has the torch peer run the same, and writes

    numbers.json   losses at both updates; the names of the tensors; checksums of all inputs
    arrays.npz     CASE/norms/NET       [2, tensors]: each gradient's norm at both updates
                   CASE/parameters/NET  after two updates, tensor after tensor; the fused step alone
                   optimizer/...        two small tensors after two updates by each optimiser

The checksums tell a changed input (an initialiser, a mask) from a changed step.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from edad_jax.data import masking
from edad_jax.distillation.imitation import ImitationSettings
from edad_jax.distillation.method import StepSettings
from edad_jax.distillation.methods import METHODS
from edad_jax.distillation.nets import Nets
from edad_jax.models import init
from edad_jax.models.config import ExBertConfig, ExtensionConfig
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import WidthProjection
from edad_jax.models.names import LEAVES
from edad_jax.training import optimizer, state
from edad_jax.training.optimizer import OptimizerSettings
from edad_jax.training.parallel import Parallel
from edad_jax.types import Batch, MaskedBatch
from tests.tiny_models import GOLDEN, random_params, tiny_bert_config
from tests.tiny_steps import CLS, MASK, NO_DROPOUT, SEP

FOLDER = GOLDEN / "step"
REMAKE = "where torch is installed: python -m tests.golden.make_step_golden"
UPDATES = 2
FROZEN = ("base", "pooler")  # of a teacher that learns
# A student learns 2.5 times as fast: a rate of the wrong net shows.
RATES = {
    "teacher": optax.linear_schedule(0.02, 0.0, 10),
    "student": optax.linear_schedule(0.05, 0.0, 10),
}
# eps far above the rounding of a gradient that is none (a key's bias, where only weights are
# read), which would otherwise be scaled up to a whole update.
SECTION = ConfigDict(
    {
        "name": "bert_adam",
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-4,
        "weight_decay": 0.1,
        "clip_norm": 0.5,
        "clip_by": "tensor",
    }
)
ROWS = ("padded", "full")
# What no shape of a parameter tells.
_SIZES = (
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)
ALPHAS = (1.0, 0.5, 0.0)


class Case(NamedTuple):
    """One run of two updates."""

    method: str
    alpha: float  # which means something to the fused step alone
    rows: str  # one of ROWS

    def place(self, net: str) -> str:
        """Returns where a net's arrays lie: a teacher's are the same whatever alpha is."""
        case = (
            self._replace(alpha=ALPHAS[0]) if net == "teacher" and self.method == "edad" else self
        )
        return f"{case}/{{}}/{net}"

    @property
    def updates_parameters(self) -> bool:
        """Returns whether an optimiser runs; of the two stages only gradients are looked at.

        What an optimiser does to a net is the same in all methods, and half of what there is to
        compile.
        """
        return self.method == "edad"

    def __str__(self) -> str:
        """Returns its name in the golden files."""
        return f"{self.method} {self.alpha:g} {self.rows}"


CASES = (
    *(Case("edad", alpha, rows) for alpha in ALPHAS for rows in ROWS),
    *(Case(method, 0.5, rows) for method in ("adaptation", "distillation") for rows in ROWS),
)


class Updates(NamedTuple):
    """What two updates left, under torch's names and in torch's orientation."""

    losses: list[dict[str, float]]  # of each update: every term, and "loss"
    gradients: list[dict[str, dict[str, np.ndarray]]]  # of each update: net -> name -> gradient
    parameters: dict[str, dict[str, np.ndarray]]  # net -> name -> array, after the last

    def norms(self, net: str) -> np.ndarray:
        """Returns the norms [updates, tensors], in the order of the names."""
        return np.array(
            [
                [np.linalg.norm(named[name].astype(np.float64)) for name in sorted(named)]
                for named in (gradients[net] for gradients in self.gradients)
            ],
            np.float32,
        )


def torch_names(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns a tree under the names, and in the orientation, of benchmarks/torch_nets.py."""
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *modules, kind = (part.key for part in path)
        array = np.asarray(leaf)
        named[".".join([*modules, LEAVES[kind]])] = array.T if kind == "kernel" else array
    return named


# What goes in


@functools.cache
def make_nets() -> Nets:
    """Returns a teacher of two layers and a student of one, both narrower than the other tests'.

    BERT's epsilon of 1e-12 could be any other, as far as float32 goes; this one is seen wherever
    a norm forgets it.
    """

    def net(width, layers):
        sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 10}
        base = tiny_bert_config(
            vocab_size=20, max_position_embeddings=12, layer_norm_eps=0.01, **sizes, **NO_DROPOUT
        )
        added = ExtensionConfig(hidden_size=6, intermediate_size=8, num_attention_heads=3)
        return ExBert(ExBertConfig(base, added, extension_vocab_size=6), jnp.float32)

    teacher, student = net(12, 2), net(6, 1)
    return Nets(teacher, student, WidthProjection(12, student.config.base, jnp.float32))


@functools.cache
def make_params(method: str) -> tuple[dict, dict]:
    """Returns (trained, frozen) parameters; biases, norms and gates are random too."""
    nets = make_nets()
    teacher = random_params(nets.teacher.config)
    student = random_params(nets.student.config, seed=1)
    random = np.random.default_rng(2)
    student["projection"] = jax.tree.map(
        lambda x: 0.2 * random.standard_normal(x.shape, np.float32),
        init.init_projection(nets.projection, (2,)),
    )
    learns, rests = state.freeze(teacher, teacher if method == "distillation" else FROZEN)
    both = {"teacher": learns, "student": student}
    return {net: both[net] for net in METHODS[method].trained_nets}, {"teacher": rests}


def make_rows(kind: str, update: int, *, rows: int = 4, length: int = 12) -> Batch:
    """Returns rows of different lengths, the last of them empty, or rows without padding."""
    random = np.random.default_rng([ROWS.index(kind), update])
    length_b = np.array([length, 7, 9, 0] if kind == "padded" else [length] * rows, np.int32)
    start_b = np.minimum(np.maximum(3, length_b // 2), length_b).astype(np.int32)
    ids_bt = random.integers(4, make_nets().teacher.config.vocab_size, (rows, length))
    ids_bt[:, 0] = CLS
    for ends_b in (start_b, length_b):
        ids_bt[np.arange(rows), ends_b - 1] = SEP
    ids_bt = np.where(np.arange(length)[None] < length_b[:, None], ids_bt, 0)
    return Batch(
        ids_bt=ids_bt.astype(np.int32),
        segment_b_start_b=start_b,
        length_b=length_b,
        next_sentence_b=random.integers(0, 2, rows).astype(np.int32),
        row_b=np.arange(rows, dtype=np.int32) + 1000 * (update + 1),
        epoch_b=np.zeros(rows, np.int32),
    )


def masking_config() -> masking.MaskingConfig:
    """Returns BERT's masking, of more pieces than its own: the rows are few and short."""
    return masking.MaskingConfig(make_nets().teacher.config.vocab_size, MASK, (CLS, SEP), 0.3, 3, 0)


@functools.cache
def masked_rows(method: str, kind: str, update: int) -> MaskedBatch:
    """Returns the rows as the nets of a method read them, as numpy arrays."""
    rows = make_rows(kind, update)
    if method == "distillation":
        return jax.tree.map(np.asarray, masking.leave_unmasked(rows))
    return jax.tree.map(np.asarray, _mask(rows))


@jax.jit
def _mask(rows):
    return masking.mask_rows(rows, masking_config())


def input_checksums() -> dict[str, str]:
    """Returns what is read, by kind: torch and we began with the same where all are the same."""
    trees = {
        "parameters": {method: make_params(method) for method in ("edad", "distillation")},
        "rows": {f"{kind} {n}": make_rows(kind, n)._asdict() for kind in ROWS for n in range(2)},
        "masked rows": {
            f"{kind} {n}": masked_rows("edad", kind, n)._asdict() for kind in ROWS for n in range(2)
        },
        "the optimisers' parameters and gradients": dict(enumerate(optimizer_inputs())),
    }
    sums = {name: init.checksum(tree)[:16] for name, tree in trees.items()}
    rates = {net: [float(rate(update)) for update in range(UPDATES)] for net, rate in RATES.items()}
    sizes = [
        [getattr(net.config.base, name) for name in _SIZES]
        for net in (make_nets().teacher, make_nets().student)
    ]
    for name, value in (("sizes", sizes), ("settings", [SECTION.to_dict(), rates])):
        sums[name] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
    return sums


# What ours makes of it


def _remembering(rest):
    """Returns an optimiser whose state begins with the gradient before the rest clips it."""
    remember = optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda gradients, old, params=None: (gradients, gradients),
    )
    return optax.chain(remember, rest)


@functools.cache
def _step(method):
    """Returns one compiled step for all alphas, which it looks up by the number of the update."""
    alphas = jnp.asarray(ALPHAS).repeat(UPDATES)
    settled = method != "edad"  # see `Case.updates_parameters`
    settings = StepSettings(
        masking=masking_config(),
        alpha=lambda step: alphas[step],
        learning_rate=RATES,
        optimizers={
            net: _remembering(
                optax.set_to_zero() if settled else OptimizerSettings(**SECTION).build(rate)
            )
            for net, rate in RATES.items()
        },
        accumulate_steps=1,
        seed=0,
        own=ImitationSettings(),
    )
    parallel = Parallel("pmap", jax.devices()[:1])
    step = parallel.compile(
        METHODS[method].make_step(make_nets(), settings), replicated_arguments=2, donate=False
    )
    return step, parallel, settings


@functools.cache
def our_updates(case: Case) -> Updates:
    """Returns two updates by our step, on one device."""
    step, parallel, settings = _step(case.method)
    trained, frozen = make_params(case.method)
    begun = state.begin(trained, settings.optimizers)
    begun = begun.replace(step=jnp.asarray(UPDATES * ALPHAS.index(case.alpha), jnp.int32))
    train_state, frozen = parallel.replicate(begun), parallel.replicate(frozen)
    losses, gradients = [], []
    for update in range(UPDATES):
        batch = parallel.shard_batch(make_rows(case.rows, update))
        train_state, metrics = step(train_state, frozen, batch)
        after = state.unpack(train_state)
        losses.append(
            {
                name: float(value)
                for name, value in metrics.items()
                if name == "loss" or name.split("/")[-1] in ("mlm", "nsp", "attention", "hidden")
            }
        )
        gradients.append({net: torch_names(kept[0]) for net, kept in after.opt_state.items()})
    parameters = {net: torch_names(tree) for net, tree in after.params.items()}
    return Updates(losses, gradients, parameters)


# Optimisers by themselves

OPTIMIZERS = tuple((name, clip) for name in optimizer.OPTIMIZERS for clip in optimizer.CLIPPING)


def optimizer_section(name: str, clip_by: str) -> ConfigDict:
    """Returns settings that are all seen: b2 far from 1, and a norm that clips."""
    return ConfigDict(
        {
            "name": name,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-6,
            "weight_decay": 0.1,
            "clip_norm": 0.5,
            "clip_by": clip_by,
        }
    )


def optimizer_inputs() -> list[dict[str, np.ndarray]]:
    """Returns parameters, and the gradients of two updates."""
    random = np.random.default_rng(0)
    return [
        {
            "kernel": random.standard_normal((4, 3), np.float32),
            "bias": 0.01 * random.standard_normal(5, np.float32),  # too short to be clipped alone
        }
        for _ in range(1 + UPDATES)
    ]


OPTIMIZER_RATES = (0.1, 0.09)


def our_optimizer(name: str, clip_by: str) -> dict[str, np.ndarray]:
    """Returns the parameters after two updates by our optimiser."""
    tx = OptimizerSettings(**optimizer_section(name, clip_by)).build(
        lambda step: jnp.asarray(OPTIMIZER_RATES)[step]
    )
    params, *gradients = optimizer_inputs()
    opt_state = tx.init(params)
    for gradient in gradients:
        updates, opt_state = tx.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
    return {leaf: np.asarray(array) for leaf, array in params.items()}


# The files


@dataclasses.dataclass(frozen=True)
class StepGolden:
    """What torch computed."""

    numbers: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def losses(self, case: Case) -> list[dict[str, float]]:
        """Returns every term, and "loss", of each update."""
        return self.numbers["losses"][str(case)]

    def names(self, net: str) -> list[str]:
        """Returns the names of the tensors that are trained, sorted."""
        return self.numbers["tensors"][net]

    def norms(self, case: Case, net: str) -> np.ndarray:
        """Returns the gradients' norms [updates, tensors]."""
        return self.arrays[case.place(net).format("norms")]

    def parameters(self, case: Case, net: str) -> np.ndarray:
        """Returns the trained parameters after both updates, flat: see `flat`."""
        return self.arrays[case.place(net).format("parameters")]


def flat(named: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns all numbers of the tensors, in the order of the names."""
    return np.concatenate([np.asarray(named[name]).ravel() for name in sorted(named)])


def assert_updates(got: Updates, case: Case, *, updates: int = UPDATES) -> None:
    """Asserts that these are torch's losses and gradients at the first so many updates."""
    golden = load_step_golden()
    for update in range(updates):
        ours, expected = got.losses[update], golden.losses(case)[update]
        assert set(ours) == set(expected)
        for name in expected:
            np.testing.assert_allclose(
                ours[name], expected[name], rtol=1e-5, err_msg=f"update {update + 1}: {name}"
            )
    for net in got.parameters:
        assert sorted(got.parameters[net]) == golden.names(net)
        for update in range(updates):
            ours, expected = got.norms(net)[update], golden.norms(case, net)[update]
            for name, our_norm, norm in zip(golden.names(net), ours, expected, strict=True):
                np.testing.assert_allclose(
                    our_norm,
                    norm,
                    rtol=1e-4,
                    atol=1e-6,
                    err_msg=f"update {update + 1}: the gradient of {net}.{name}",
                )


def assert_parameters(got: Updates, case: Case) -> None:
    """Asserts that these are torch's parameters after both updates."""
    golden = load_step_golden()
    for net, named in got.parameters.items():
        expected, start = golden.parameters(case, net), 0
        assert expected.size == flat(named).size
        for name in golden.names(net):
            stop = start + named[name].size
            np.testing.assert_allclose(
                named[name].ravel(),
                expected[start:stop],
                rtol=1e-5,
                atol=1e-5,
                err_msg=f"{net}.{name}",
            )
            start = stop


@functools.cache
def load_step_golden() -> StepGolden:
    """Returns the golden files, as they are; `check_inputs` says whether they fit."""
    with np.load(FOLDER / "arrays.npz", allow_pickle=False) as arrays:
        numbers = json.loads((FOLDER / "numbers.json").read_text(encoding="utf-8"))
        return StepGolden(numbers, dict(arrays))


def check_inputs(expected: Mapping[str, str]) -> None:
    """Raises AssertionError where we would begin with something else than torch did."""
    got = input_checksums()
    other = [name for name in sorted(got | expected) if got.get(name) != expected.get(name)]
    assert not other, (
        f"{', '.join(other)}: not what torch read when it made {FOLDER.name}/, so nothing can be "
        f"said of the step. Was that change meant? Then make the files anew, {REMAKE}"
    )
