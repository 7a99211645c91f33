# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/modernbert: a tiny ModernBERT of transformers, and what torch makes of it.

    python -m tests.golden.make_modernbert_golden

config.json, model.safetensors, and outputs.npz: what `make_bert_golden.run` writes; the loss of
masked words, and the norm of its gradient by each tensor. Needs torch and transformers.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import json  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers.models.modernbert import modeling_modernbert  # noqa: E402

from tests.tiny_models import GOLDEN  # noqa: E402

FOLDER = GOLDEN / "modernbert"
SIZES = {
    "vocab_size": 68,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "initializer_range": 0.2,
    "local_attention": 4,  # rows are several times as long
    "global_attn_every_n_layers": 2,
    "pad_token_id": 0,
    **{f"{name}_token_id": None for name in ("bos", "eos", "cls", "sep")},
}


def make_modernbert(**changes) -> transformers.ModernBertForMaskedLM:
    """Returns transformers' ModernBERT with random weights, norms too."""
    config = transformers.ModernBertConfig(**(SIZES | changes), attn_implementation="eager")
    model = transformers.ModernBertForMaskedLM(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn_like(parameter))
    return model.eval()


def run(model, *, rows: int = 3, length: int = 16) -> dict[str, np.ndarray]:
    """Returns padded inputs and what the model makes of them, as NumPy arrays."""
    random = np.random.default_rng(0)
    lengths_b = length - 3 * np.arange(rows)
    mask_bt = np.arange(length)[None] < lengths_b[:, None]
    ids_bt = np.where(mask_bt, random.integers(1, model.config.vocab_size, mask_bt.shape), 0)
    scores, whole = [], modeling_modernbert.eager_attention_forward

    def recording(module, query, key, *arguments, **options):
        scores.append((query @ key.transpose(2, 3) * options["scaling"]).detach().numpy())
        return whole(module, query, key, *arguments, **options)

    modeling_modernbert.eager_attention_forward = recording
    labels = torch.from_numpy(np.where(mask_bt & (ids_bt % 3 == 0), ids_bt, -100))
    output = model(
        input_ids=torch.from_numpy(ids_bt),
        attention_mask=torch.from_numpy(mask_bt).long(),
        labels=labels,
        output_hidden_states=True,
    )
    modeling_modernbert.eager_attention_forward = whole
    output.loss.backward()
    norms = {name: x.grad.norm().numpy() for name, x in model.named_parameters()}
    model.zero_grad()
    return {
        "ids_bt": ids_bt.astype(np.int32),
        "segments_bt": np.zeros_like(ids_bt, np.int32),
        "mask_bt": mask_bt,
        "mlm_logits_btv": output.logits.detach().numpy(),
        "mlm_loss": output.loss.detach().numpy(),
        **{f"gradient_norm/{name}": norm for name, norm in norms.items()},
        **{f"hidden_{n}_btd": x.detach().numpy() for n, x in enumerate(output.hidden_states)},
        **{f"scores_{n}_bhts": x for n, x in enumerate(scores)},
    }


def main() -> None:
    """Writes the folder."""
    model = make_modernbert()
    FOLDER.mkdir(exist_ok=True)
    config = {name: value for name, value in model.config.to_dict().items() if name[0] != "_"}
    text = json.dumps(config, indent=1, sort_keys=True, default=str)
    (FOLDER / "config.json").write_text(text + "\n", encoding="utf-8")
    tied = model._tied_weights_keys
    tensors = {name: x.contiguous() for name, x in model.state_dict().items() if name not in tied}
    save_file(tensors, FOLDER / "model.safetensors", metadata={"format": "pt"})
    (FOLDER / "model.safetensors").chmod(0o644)
    np.savez_compressed(FOLDER / "outputs.npz", **run(model))


if __name__ == "__main__":
    main()
