# SPDX-License-Identifier: Apache-2.0
"""What torch calls our parameters: one table of names for each family of checkpoints."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# What a checkpoint may lack where the config says so, and how its tensors' names begin.
HEADS = {"pooler": "pooler.", "mlm": "cls.predictions.", "nsp": "cls.seq_relationship."}
# What may sit on a BERT beside these, put there by training it for a task.
TASK_HEADS = ("classifier.", "qa_outputs.")


@dataclasses.dataclass(frozen=True)
class NameTable:
    """How one family of checkpoints names what we have: our module -> torch's module.

    Names are those of the bare encoder (no `bert.` in front). `{}` is the layer's number.
    """

    modules: Mapping[str, str]  # once in the model
    layers: Mapping[str, str]  # once in each layer


_BLOCK = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
BERT = NameTable(
    modules={
        "base/embeddings/word": "embeddings.word_embeddings",
        "base/embeddings/position": "embeddings.position_embeddings",
        "base/embeddings/token_type": "embeddings.token_type_embeddings",
        "base/embeddings/norm": "embeddings.LayerNorm",
        "pooler/dense": "pooler.dense",
        "mlm/transform": "cls.predictions.transform.dense",
        "mlm/norm": "cls.predictions.transform.LayerNorm",
        "mlm": "cls.predictions",  # its own bias, one number for each word
        "nsp/dense": "cls.seq_relationship",
        "classifier/dense": "classifier",
    },
    layers={f"base/layers_{{}}/{ours}": f"encoder.layer.{{}}.{it}" for ours, it in _BLOCK.items()},
)
EXBERT = NameTable(
    modules=BERT.modules,
    layers={
        **BERT.layers,
        **{
            f"extension/layers_{{}}/{ours}": f"encoder.extension_layer.{{}}.{it}"
            for ours, it in _BLOCK.items()
        },
        "extension/gates_{}": "encoder.gate.{}",
    },
)
LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


def modules_of(table: NameTable, num_layers: int) -> dict[str, str]:
    """Returns our module -> torch's module, with every layer spelt out."""
    modules = dict(table.modules)
    for layer in range(num_layers):
        modules |= {ours.format(layer): it.format(layer) for ours, it in table.layers.items()}
    return modules


def bare_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tensors without `bert.`, old LayerNorm names and position buffers.

    Raises:
      ValueError: two tensors have one name, but for the prefix.
    """
    bare = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("bert.")
        if short in ("embeddings.position_ids", "embeddings.token_type_ids"):
            continue  # counters that old versions of transformers stored
        short = short.replace("LayerNorm.gamma", "LayerNorm.weight")
        short = short.replace("LayerNorm.beta", "LayerNorm.bias")
        if short in bare:
            raise ValueError(f"the checkpoint holds {short} twice, with and without a prefix")
        bare[short] = tensor
    return bare


def prefixed(name: str) -> str:
    """Returns the name that a bare one has in a model with heads."""
    return name if name.startswith(("cls.", *TASK_HEADS)) else f"bert.{name}"
