# SPDX-License-Identifier: Apache-2.0
"""What torch calls our parameters: one table of names for each family of checkpoints."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

HEADS = ("pooler", "mlm", "nsp")  # what a checkpoint may lack where the config says so
# What may sit on an encoder beside these, put there by training it for a task.
TASK_HEADS = ("classifier.", "qa_outputs.")
LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


@dataclasses.dataclass(frozen=True)
class NameTable:
    """How one family of checkpoints names what we have: our module -> torch's module.

    Names are those of the bare encoder (no `bert.` in front). `{}` is the layer's number.
    """

    modules: Mapping[str, str]  # once in the model
    layers: Mapping[str, str]  # once in each layer that is stored
    prefix: str  # what the encoder's names have in front in a model with heads
    outside: tuple[str, ...]  # how names begin that have no such prefix
    heads: Mapping[str, tuple[str, ...]]  # our head -> how the names of its tensors begin
    decoder: str  # the MLM head's map to words; tied to the word table and to the head's bias
    left_behind: tuple[str, ...] = ()  # heads that we have no use for
    # The classifier of whole texts, where it is called otherwise than that of words.
    text_classifier: str = ""
    any_classifier: str = ""  # of every task, where it is called otherwise than in BERTs
    # Matrices in which several of ours lie one after the other: the end of torch's name -> how
    # many. In `layers` they are NAME.0, NAME.1, ...
    joined: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def prefixed(self, name: str) -> str:
        """Returns the name that a bare one has in a model with heads."""
        return name if name.startswith((*self.outside, *TASK_HEADS)) else self.prefix + name


_EMBEDDINGS = {
    "base/embeddings/word": "embeddings.word_embeddings",
    "base/embeddings/position": "embeddings.position_embeddings",
    "base/embeddings/token_type": "embeddings.token_type_embeddings",
    "base/embeddings/norm": "embeddings.LayerNorm",
    "classifier/dense": "classifier",
}
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
        **_EMBEDDINGS,
        "pooler/dense": "pooler.dense",
        "mlm/transform": "cls.predictions.transform.dense",
        "mlm/norm": "cls.predictions.transform.LayerNorm",
        "mlm": "cls.predictions",  # its own bias, one number for each word
        "nsp/dense": "cls.seq_relationship",
    },
    layers={f"base/layers_{{}}/{ours}": f"encoder.layer.{{}}.{it}" for ours, it in _BLOCK.items()},
    prefix="bert.",
    outside=("cls.",),
    heads={"pooler": ("pooler.",), "mlm": ("cls.predictions.",), "nsp": ("cls.seq_relationship.",)},
    decoder="cls.predictions.decoder",
)
_RELATIVE = {"base/relative": "encoder.relative_attention_bias"}
EXBERT = dataclasses.replace(
    BERT,
    modules={**BERT.modules, **_RELATIVE},
    layers={
        **BERT.layers,
        **{
            f"extension/layers_{{}}/{ours}": f"encoder.extension_layer.{{}}.{it}"
            for ours, it in _BLOCK.items()
        },
        "extension/gates_{}": "encoder.gate.{}",
    },
)
DISTILBERT = NameTable(
    modules={
        **_EMBEDDINGS,
        "pooler/dense": "pre_classifier",  # only in a DistilBertForSequenceClassification
        "mlm/transform": "vocab_transform",
        "mlm/norm": "vocab_layer_norm",
        "mlm": "vocab_projector",
    },
    layers={
        f"base/layers_{{}}/{ours}": f"transformer.layer.{{}}.{it}"
        for ours, it in {
            "attention/query": "attention.q_lin",
            "attention/key": "attention.k_lin",
            "attention/value": "attention.v_lin",
            "attention/output": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "intermediate": "ffn.lin1",
            "output": "ffn.lin2",
            "output_norm": "output_layer_norm",
        }.items()
    },
    prefix="distilbert.",
    outside=("vocab_", "pre_classifier."),
    heads={"pooler": ("pre_classifier.",), "mlm": ("vocab_",)},
    decoder="vocab_projector",
)
ALBERT = NameTable(
    modules={
        **_EMBEDDINGS,
        "base/embeddings/projection": "encoder.embedding_hidden_mapping_in",
        "pooler/dense": "pooler",
        "mlm/transform": "predictions.dense",
        "mlm/norm": "predictions.LayerNorm",
        "mlm": "predictions",
        # ALBERT has a head for the order of sentences, which tells other things apart.
        "nsp/dense": "cls.seq_relationship",
    },
    layers={
        f"base/layers_{{}}/{ours}": f"encoder.albert_layer_groups.{{}}.albert_layers.0.{it}"
        for ours, it in {
            "attention/query": "attention.query",
            "attention/key": "attention.key",
            "attention/value": "attention.value",
            "attention/output": "attention.dense",
            "attention_norm": "attention.LayerNorm",
            "intermediate": "ffn",
            "output": "ffn_output",
            "output_norm": "full_layer_layer_norm",
        }.items()
    },
    prefix="albert.",
    outside=("predictions.", "cls.", "sop_classifier."),
    heads={"pooler": ("pooler.",), "mlm": ("predictions.",), "nsp": ("cls.seq_relationship.",)},
    decoder="predictions.decoder",
    left_behind=("sop_classifier.",),
)
ROBERTA = NameTable(
    modules={
        **_EMBEDDINGS,
        "pooler/dense": "classifier.dense",  # only in a RobertaForSequenceClassification
        "mlm/transform": "lm_head.dense",
        "mlm/norm": "lm_head.layer_norm",
        "mlm": "lm_head",
    },
    layers=BERT.layers,
    prefix="roberta.",
    outside=("lm_head.",),
    heads={"pooler": ("classifier.dense.",), "mlm": ("lm_head.",)},
    decoder="lm_head.decoder",
    left_behind=("pooler.",),  # of a RobertaModel; no pretraining task has taught it anything
    text_classifier="classifier.out_proj",
)
ELECTRA = NameTable(
    modules={
        **_EMBEDDINGS,
        "base/embeddings/projection": "embeddings_project",
        "pooler/dense": "classifier.dense",
        "mlm/transform": "generator_predictions.dense",  # a discriminator has no such head
        "mlm/norm": "generator_predictions.LayerNorm",
        "mlm": "generator_lm_head",
    },
    layers=BERT.layers,
    prefix="electra.",
    outside=("generator_", "discriminator_predictions."),
    heads={"pooler": ("classifier.dense.",), "mlm": ("generator_",)},
    decoder="generator_lm_head",
    left_behind=("discriminator_predictions.",),
    text_classifier="classifier.out_proj",
)
MODERNBERT = NameTable(
    modules={
        "base/embeddings/word": "embeddings.tok_embeddings",
        "base/embeddings/norm": "embeddings.norm",
        "base/final_norm": "final_norm",
        "classifier/dense": "classifier",
        "pooler/dense": "head.dense",  # the classifiers' head begins as that of the MLM
        "pooler/norm": "head.norm",
        "mlm/transform": "head.dense",
        "mlm/norm": "head.norm",
        "mlm": "decoder",
    },
    layers={
        f"base/layers_{{}}/{ours}": f"layers.{{}}.{it}"
        for ours, it in {
            "attention_norm": "attn_norm",  # the first layer has none
            "attention/query": "attn.Wqkv.0",
            "attention/key": "attn.Wqkv.1",
            "attention/value": "attn.Wqkv.2",
            "attention/output": "attn.Wo",
            "intermediate_norm": "mlp_norm",
            "intermediate": "mlp.Wi.0",
            "multiplier": "mlp.Wi.1",
            "output": "mlp.Wo",
        }.items()
    },
    prefix="model.",
    outside=("head.", "decoder."),
    heads={"pooler": ("head.",), "mlm": ("head.", "decoder.")},
    decoder="decoder",
    any_classifier="classifier",
    joined={"attn.Wqkv": 3, "mlp.Wi": 2},
)
MPNET = dataclasses.replace(
    ROBERTA,
    modules={**ROBERTA.modules, **_RELATIVE},
    layers={
        f"base/layers_{{}}/{ours}": f"encoder.layer.{{}}.{it}"
        for ours, it in {
            **_BLOCK,
            "attention/query": "attention.attn.q",
            "attention/key": "attention.attn.k",
            "attention/value": "attention.attn.v",
            "attention/output": "attention.attn.o",
            "attention_norm": "attention.LayerNorm",
        }.items()
    },
    prefix="mpnet.",
)
TABLES = {
    "bert": BERT,
    "exbert": EXBERT,
    "distilbert": DISTILBERT,
    "albert": ALBERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "electra": ELECTRA,
    "modernbert": MODERNBERT,
    "mpnet": MPNET,
}


def modules_of(table: NameTable, stored_layers: int) -> dict[str, str]:
    """Returns our module -> torch's module, with every layer that is stored spelt out."""
    modules = dict(table.modules)
    for layer in range(stored_layers):
        modules |= {ours.format(layer): it.format(layer) for ours, it in table.layers.items()}
    return modules


def bare_names(tensors: Mapping[str, Any], table: NameTable) -> dict[str, Any]:
    """Returns the tensors without `bert.`, old LayerNorm names, counters and unused heads.

    Raises:
      ValueError: two tensors have one name, but for the prefix.
    """
    bare = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(table.prefix)
        if short in ("embeddings.position_ids", "embeddings.token_type_ids"):
            continue  # counters that old versions of transformers stored
        if table.left_behind and short.startswith(table.left_behind):
            continue
        short = short.replace("LayerNorm.gamma", "LayerNorm.weight")
        short = short.replace("LayerNorm.beta", "LayerNorm.bias")
        if short in bare:
            raise ValueError(f"the checkpoint holds {short} twice, with and without a prefix")
        bare[short] = tensor
    return _split(bare, table)


def _split(tensors, table):
    """Returns the tensors with those that lie in one matrix apart."""
    apart = {}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        count = next((n for end, n in table.joined.items() if module.endswith(f".{end}")), 0)
        parts = np.array_split(tensor, count) if count else ()
        apart |= {f"{module}.{n}.weight": part for n, part in enumerate(parts)} or {name: tensor}
    return apart


def join(tensors: Mapping[str, np.ndarray], table: NameTable) -> dict[str, np.ndarray]:
    """Returns the tensors with those that torch has in one matrix together."""
    joined, parts = {}, {}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight").rpartition(".")[0]
        if module.endswith(tuple(f".{end}" for end in table.joined)):
            parts.setdefault(f"{module}.weight", {})[name] = tensor
        else:
            joined[name] = tensor
    return joined | {
        name: np.concatenate([some[part] for part in sorted(some)]) for name, some in parts.items()
    }
