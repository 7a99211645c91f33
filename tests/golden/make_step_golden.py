# SPDX-License-Identifier: Apache-2.0
"""Has the torch peer run tests/golden_step.py's runs, and writes what it computes to step/.

    python -m tests.golden.make_step_golden

Needs torch: the peer is benchmarks/torch_update.py, in its mode `plain` (float32, no fused kernel,
BertAdam tensor by tensor).
"""

import json

import numpy as np
import torch

from benchmarks import torch_update
from edad_jax.distillation.nets import Nets
from tests import golden_step
from tests.golden_step import Case, Updates


def torch_updates(case: Case, mode: torch_update.Mode, nets: Nets | None = None) -> Updates:
    """Returns two updates by the peer."""
    nets = nets or golden_step.make_nets()
    trained, frozen = golden_step.make_params(case.method)
    loaded = torch_update.load_nets(nets, trained, frozen, mode, device="cpu")

    def terms_of(batch):
        return torch_update.loss_terms(
            loaded, nets, batch, method=case.method, mode=mode, with_nsp=True
        )

    def loss_fn(batch, alpha):
        return torch_update.total_loss(terms_of(batch), case.method, alpha)

    update = torch_update.make_update(loaded, loss_fn, golden_step.SECTION, mode)
    losses, gradients = [], []
    for number in range(golden_step.UPDATES):
        batch = torch_update.torch_batch(
            golden_step.masked_rows(case.method, case.rows, number), device="cpu"
        )
        # `update` clips gradients and then forgets them, so they are taken once more before it.
        loss = loss_fn(batch, case.alpha)
        loss.backward()
        losses.append(
            {name: term.item() for name, term in (terms_of(batch) | {"loss": loss}).items()}
        )
        gradients.append({net: _gradients(loaded[net]) for net in trained})
        loaded.zero_grad()
        if case.updates_parameters:
            rates = {net: float(rate(number)) for net, rate in golden_step.RATES.items()}
            update(batch, case.alpha, rates)
    parameters = {
        net: {
            name: p.detach().numpy()
            for name, p in loaded[net].named_parameters()
            if p.requires_grad
        }
        for net in trained
    }
    return Updates(losses, gradients, parameters)


def _gradients(net):
    """Returns name -> gradient of what is trained; zeros where the loss does not read it."""
    return {
        name: (torch.zeros_like(p) if p.grad is None else p.grad).numpy().copy()
        for name, p in net.named_parameters()
        if p.requires_grad
    }


def torch_optimizer(name: str, clip_by: str, mode: torch_update.Mode) -> dict[str, np.ndarray]:
    """Returns the parameters after two updates by the peer's optimiser."""
    section = golden_step.optimizer_section(name, clip_by)
    params, *gradients = golden_step.optimizer_inputs()
    ours = torch.nn.ParameterDict({leaf: torch.tensor(array) for leaf, array in params.items()})
    peer = torch_update.make_optimizer(ours.values(), section, mode)
    for rate, gradient in zip(golden_step.OPTIMIZER_RATES, gradients, strict=True):
        for leaf, array in gradient.items():
            ours[leaf].grad = torch.tensor(array)
        torch_update.clip_gradients(ours.values(), section.clip_norm, clip_by, fuses=mode.fuses)
        for group in peer.param_groups:
            group["lr"] = rate
        peer.step()
    return {leaf: array.detach().numpy() for leaf, array in ours.items()}


def main() -> None:
    """Writes numbers.json and arrays.npz."""
    plain = torch_update.MODES["plain"]
    tensors, losses, arrays = {}, {}, {}
    for case in golden_step.CASES:
        got = torch_updates(case, plain)
        losses[str(case)] = got.losses
        for net, named in got.parameters.items():
            tensors[net] = sorted(named)
            made = {"norms": got.norms(net)}
            if case.updates_parameters:
                made["parameters"] = golden_step.flat(named)
            for kind, array in made.items():
                kept = arrays.setdefault(case.place(net).format(kind), array)
                np.testing.assert_array_equal(kept, array)  # one place serves several cases
    for name, clip_by in golden_step.OPTIMIZERS:
        for leaf, array in torch_optimizer(name, clip_by, plain).items():
            arrays[f"optimizer/{name}/{clip_by}/{leaf}"] = array
    numbers = {
        "made_by": f"torch {torch.__version__.split('+')[0]}",
        "inputs": golden_step.input_checksums(),
        "losses": losses,
        "tensors": tensors,
    }
    golden_step.FOLDER.mkdir(exist_ok=True)
    text = json.dumps(numbers, indent=1)
    (golden_step.FOLDER / "numbers.json").write_text(text + "\n", encoding="utf-8")
    np.savez_compressed(golden_step.FOLDER / "arrays.npz", **arrays)


if __name__ == "__main__":
    main()
