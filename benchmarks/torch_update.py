# SPDX-License-Identifier: Apache-2.0
"""One update in torch: EDAD and its two stages, by the maths of edad_jax/distillation/edad.py.

    tuned   bfloat16 autocast (float32 parameters, softmax, norms, residuals and losses; what is
            frozen is stored in bfloat16), MLM logits at the masked slots only, one kernel for
            attention whose scores nobody asks for (on a CPU: and whose gradient nobody asks for),
            clipping by foreach, torch's fused AdamW
    plain   float32, MLM logits at every position with ignore_index, scores always computed,
            clipping and BertAdam tensor by tensor, as research code does it

Both freeze by requires_grad=False, so that no gradient of a frozen weight is computed. `plain`
updates as edad_jax/training/optimizer.py does. `tuned` does so with config.optimizer.name=adamw; it
takes AdamW for bert_adam too, which costs the same and differs by the correction of the bias.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional

from benchmarks.torch_nets import load_net
from edad_jax.distillation.nets import Nets
from edad_jax.types import MaskedBatch

IGNORED = -100


@dataclasses.dataclass(frozen=True)
class Mode:
    """How the maths is done; what it is stays the same."""

    autocasts: bool  # products in bfloat16
    gathers: bool  # MLM logits at the masked slots only
    fuses: bool  # attention, clipping and optimiser by fused kernels


MODES = {
    "tuned": Mode(autocasts=True, gathers=True, fuses=True),
    "plain": Mode(autocasts=False, gathers=False, fuses=False),
}


def load_nets(
    nets: Nets,
    trained: Mapping[str, dict],
    frozen: Mapping[str, dict],
    mode: Mode,
    *,
    device: str,
) -> nn.ModuleDict:
    """Returns {"teacher": net, "student": net} of those that have parameters; some are frozen."""
    loaded = nn.ModuleDict()
    for name in sorted(trained.keys() | frozen.keys()):
        parts = frozen.get(name, {})
        net = load_net(
            getattr(nets, name).config,
            trained.get(name, {}) | parts,
            fuses=mode.fuses,
            device=device,
        )
        for path, parameter in net.named_parameters():
            if path.split(".")[0] in parts:
                parameter.requires_grad_(False)
        if mode.autocasts:
            _store_frozen_low(net)
        loaded[name] = net
    return loaded


def torch_batch(batch: MaskedBatch, *, device: str) -> MaskedBatch:
    """Returns the batch as tensors."""
    tensors = {
        name: torch.tensor(np.asarray(field), device=device)
        for name, field in batch._asdict().items()
        if field is not None
    }
    as_they_are = ("mask_bt", "masked_weights_bm")
    return MaskedBatch(
        **{name: each if name in as_they_are else each.long() for name, each in tensors.items()}
    )


def loss_terms(
    nets: nn.ModuleDict,
    taps: Nets,
    batch: MaskedBatch,
    *,
    method: str,
    mode: Mode,
    with_nsp: bool,
) -> dict[str, torch.Tensor]:
    """Returns the terms of a method's loss, under the names of the step's metrics.

    Args:
      nets: of `load_nets`.
      taps: which layers imitate which.
      batch: masked, or for "distillation" unmasked.
      method: "edad", "adaptation" or "distillation".
      mode: how.
      with_nsp: whether the rows have second segments to tell.
    """
    low = (
        torch.autocast(batch.ids_bt.device.type, torch.bfloat16)
        if mode.autocasts
        else contextlib.nullcontext()
    )
    with low:
        learns, imitates = method != "distillation", method != "adaptation"
        teacher = nets["teacher"](batch, taps.teacher_taps if imitates else ())
        terms = {}
        if learns:
            terms |= _adapt(nets, "teacher", teacher.last_hidden_btd, batch, mode, with_nsp)
        if imitates:
            student = nets["student"](batch, taps.student_taps)
            if learns:
                terms |= _adapt(nets, "student", student.last_hidden_btd, batch, mode, with_nsp)
            terms |= _imitate(nets["student"], student, teacher, batch.mask_bt)
    return terms


def total_loss(
    terms: Mapping[str, torch.Tensor], method: str, alpha: torch.Tensor | float
) -> torch.Tensor:
    """Returns the loss: EDAD's Eq. 5 + Eq. 6; of the two stages the sum of their terms."""
    weights = {"teacher": 1.0, "distill": 1.0, "student": 1.0}
    if method == "edad":
        weights |= {"distill": alpha, "student": 1.0 - alpha}
    return sum(weights[name.split("/")[0]] * term for name, term in terms.items())


def _adapt(nets, name, hidden_btd, batch, mode, with_nsp):
    """Returns L_MLM and L_NSP of a net."""
    net = nets[name]
    if mode.gathers:
        hidden_bmd = torch.take_along_dim(hidden_btd, batch.masked_positions_bm[..., None], 1)
        logits, labels = net.mlm_logits(hidden_bmd), batch.masked_labels_bm
        labels = labels.masked_fill(batch.masked_weights_bm == 0, IGNORED)
    else:
        logits, labels = net.mlm_logits(hidden_btd), labels_everywhere(batch)
    terms = {
        f"{name}/mlm": functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
        )
    }
    if with_nsp and net.config.base.has_pooler:
        labels_b = batch.next_sentence_b.masked_fill(~batch.mask_bt.any(1), IGNORED)
        terms[f"{name}/nsp"] = functional.cross_entropy(
            net.nsp_logits(hidden_btd), labels_b, ignore_index=IGNORED
        )
    return terms


def labels_everywhere(batch: MaskedBatch) -> torch.Tensor:
    """Returns labels_bt: the original piece where one is masked, IGNORED elsewhere.

    masked_positions_bm   3 1 0        masked_labels_bm  9 8 0      masked_weights_bm  1 1 0
    labels_bt          -100 8 -100 9
    """
    rows, length = batch.ids_bt.shape
    labels_bt = batch.ids_bt.new_full((rows, length + 1), IGNORED)
    # Unused slots, which point at position 0, write behind the end, which is cut off.
    used_bm = batch.masked_weights_bm > 0
    labels_bt.scatter_(
        1,
        batch.masked_positions_bm.masked_fill(~used_bm, length),
        batch.masked_labels_bm,
    )
    return labels_bt[:, :length]


def _imitate(net, student, teacher, mask_bt):
    """Returns the two sums of L_TinyBERT; padding counts nowhere."""
    real_b1ts = (mask_bt[:, None, :, None] & mask_bt[:, None, None, :]).float()
    real_bt1 = mask_bt[..., None].float()
    attention = hidden = 0.0
    for ours_bhts, its_bhts in zip(student.scores_bhts, teacher.scores_bhts, strict=True):
        heads = min(ours_bhts.shape[1], its_bhts.shape[1])
        error_bhts = ours_bhts[:, :heads].float() - its_bhts[:, :heads].detach().float()
        error_bhts = error_bhts * real_b1ts
        attention = attention + error_bhts.square().sum() / heads
    for ours_btd, its_bte in zip(
        (student.embedding_btd, *student.hidden_btd),
        (teacher.embedding_btd, *teacher.hidden_btd),
        strict=True,
    ):
        error_bte = (net.project(ours_btd) - its_bte.detach()) * real_bt1
        hidden = hidden + error_bte.square().sum() / its_bte.shape[-1]
    return {
        "distill/attention": attention / real_b1ts.sum(),
        "distill/hidden": hidden / real_bt1.sum(),
    }


def make_update(
    nets: nn.ModuleDict,
    loss_fn: Callable[[MaskedBatch, torch.Tensor], torch.Tensor],
    section: ConfigDict,
    mode: Mode,
) -> Callable[[MaskedBatch, torch.Tensor, Mapping[str, float]], torch.Tensor]:
    """Returns update(batch, alpha, {net: learning rate}) -> loss, which changes the nets.

    Args:
      nets: of `load_nets`.
      loss_fn: (batch, alpha) -> loss.
      section: config.optimizer.
      mode: how.
    """
    trained = {name: [p for p in net.parameters() if p.requires_grad] for name, net in nets.items()}
    trained = {name: parameters for name, parameters in trained.items() if parameters}
    optimizers = {name: make_optimizer(p, section, mode) for name, p in trained.items()}

    def update(batch, alpha, rates):
        loss = loss_fn(batch, alpha)
        loss.backward()
        for name, optimizer in optimizers.items():
            clip_gradients(trained[name], section.clip_norm, section.clip_by, fuses=mode.fuses)
            for group in optimizer.param_groups:
                group["lr"] = rates[name]
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return update


def make_optimizer(
    parameters: Iterable[nn.Parameter], section: ConfigDict, mode: Mode
) -> torch.optim.Optimizer:
    """Returns a net's optimiser; biases and norms, which alone have one axis, do not decay."""
    parameters = list(parameters)
    groups = [
        {
            "params": [p for p in parameters if p.ndim > 1],
            "weight_decay": section.weight_decay,
        },
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    settings = {"lr": 0.0, "betas": (section.b1, section.b2), "eps": section.eps}
    if mode.fuses:
        return torch.optim.AdamW(groups, fused=True, **settings)
    if section.name == "adamw":
        return torch.optim.AdamW(groups, foreach=False, **settings)
    return BertAdam(groups, settings)


class BertAdam(torch.optim.Optimizer):
    """Adam without bias correction, with decoupled weight decay; one tensor after the other."""

    @torch.no_grad()
    def step(self):
        """Changes the parameters by their gradients."""
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                    state["mean_square"] = torch.zeros_like(parameter)
                gradient, mean, mean_square = parameter.grad, state["mean"], state["mean_square"]
                mean.mul_(b1).add_(gradient, alpha=1 - b1)
                mean_square.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
                change = mean / (mean_square.sqrt() + group["eps"])
                change.add_(parameter, alpha=group["weight_decay"])
                parameter.sub_(change, alpha=group["lr"])


def clip_gradients(
    parameters: Iterable[nn.Parameter], clip_norm: float, clip_by: str, *, fuses: bool
) -> None:
    """Clips gradients in place: by the norm over all of a net's, or each tensor by its own."""
    parameters = [p for p in parameters if p.grad is not None]
    if clip_by == "net":
        nn.utils.clip_grad_norm_(parameters, clip_norm, foreach=fuses)
    elif fuses:
        gradients = [p.grad for p in parameters]
        norms = torch.stack(torch._foreach_norm(gradients))
        shares = torch.clamp(clip_norm / norms.clamp(min=1e-12), max=1.0)
        torch._foreach_mul_(gradients, list(shares.unbind()))
    else:
        for parameter in parameters:
            nn.utils.clip_grad_norm_([parameter], clip_norm, foreach=False)


def _store_frozen_low(net):
    """Turns the frozen operands of products to bfloat16, which autocast would do at each step."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Embedding) and not module.weight.requires_grad:
            module.weight.data = module.weight.data.bfloat16()
