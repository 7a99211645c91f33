# SPDX-License-Identifier: Apache-2.0
"""The sizes and options of an encoder: BERT's (Devlin et al. 2019), and those of its kin.

DistilBERT (Sanh et al. 2019)   type_vocab_size=0, has_pooler=False
ALBERT (Lan et al. 2020)        shares_layers=True, embedding_size=128, hidden_act="gelu_new"
RoBERTa (Liu et al. 2019)       family, position_offset=2, type_vocab_size=1, has_pooler=False
XLM-R (Conneau et al. 2020)     likewise
ELECTRA (Clark et al. 2020)     family, embedding_size=128 (small), has_pooler=False
ModernBERT (Warner et al. 2024) family, modern: other blocks, type_vocab_size=0, has_pooler=False
MPNet (Song et al. 2020)        family, position_offset=2, type_vocab_size=0, has_pooler=False,
                                relative_attention_num_buckets=32
"""

import dataclasses
from typing import Any

from edad_jax.models.relative_position import BUCKETS

# The activation of the layer between [CLS] and a classifier, in families that have no pooler else.
_POOLERS = {"roberta": "tanh", "xlm-roberta": "tanh", "electra": "gelu", "mpnet": "tanh"}
ACTIVATIONS = ("gelu", "gelu_new")  # by the error function, as in BERT; by tanh, as in ALBERT


POOLINGS = ("cls", "mean")


@dataclasses.dataclass(frozen=True)
class ModernConfig:
    """What a ModernBERT's blocks have beside the sizes of a BERT's; see `modernbert`."""

    window: int  # how many positions a local layer sees to each side
    global_layers: tuple[int, ...]  # those, from 0, that see the whole row
    global_theta: float  # the slowest rotation turns once in about 2 pi so many positions
    local_theta: float  # likewise, in local layers
    pooling: str = "cls"  # what a classifier of whole texts reads, one of POOLINGS

    def __post_init__(self):
        for name, is_wrong in (
            ("window", self.window < 1),
            ("global_theta", self.global_theta <= 0),
            ("local_theta", self.local_theta <= 0),
        ):
            if is_wrong:
                raise ValueError(f"got {name}={getattr(self, name)}, expected more than 0")
        if self.pooling not in POOLINGS:
            raise ValueError(f"got pooling={self.pooling!r}, expected {' or '.join(POOLINGS)}")

    def window_of(self, layer: int) -> int:
        """Returns how many positions a layer sees to each side; 0: all of the row."""
        return 0 if layer in self.global_layers else self.window

    def theta_of(self, layer: int) -> float:
        """Returns the base of a layer's rotations."""
        return self.global_theta if layer in self.global_layers else self.local_theta


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of an encoder, under the names that the config.json of a BERT or ALBERT uses."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int  # 0: no segment vectors
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    layer_norm_eps: float
    initializer_range: float
    has_pooler: bool = True  # False: neither pooler nor next-sentence head
    shares_layers: bool = False  # one block, applied num_hidden_layers times
    embedding_size: int = 0  # width of the tables before a map to hidden_size; 0: no such map
    hidden_act: str = "gelu"  # one of ACTIVATIONS
    family: str = (
        ""  # what a checkpoint calls it; "" where the sizes tell: BERT, DistilBERT, ALBERT
    )
    # Rows in front of a checkpoint's position table that no piece reads; nets do not have them.
    position_offset: int = 0
    modern: ModernConfig | None = None  # None: BERT's own blocks, and positions in a table
    # Of distances between pieces: each has a number for each head that is added to its scores, in
    # all layers (`relative_position`); 0: nothing is.
    relative_attention_num_buckets: int = 0

    def __post_init__(self):
        check_sizes(
            self,
            *("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"),
            "max_position_embeddings",
        )
        check_heads(self.hidden_size, self.num_attention_heads, "hidden_size")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"got {name}={getattr(self, name)}, expected a share from 0 to below 1"
                )
        if not 0 <= self.layer_norm_eps < 1:
            raise ValueError(f"got layer_norm_eps={self.layer_norm_eps}, expected a small number")
        if self.modern:
            check_rotations(self.hidden_size, self.num_attention_heads, "hidden_size")
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(
                f"got hidden_act={self.hidden_act!r}, expected one of {', '.join(ACTIVATIONS)}"
            )
        for name in ("type_vocab_size", "embedding_size", "position_offset"):
            if getattr(self, name) < 0:
                raise ValueError(f"got {name}={getattr(self, name)}, expected 0 (none) or more")
        if (buckets := self.relative_attention_num_buckets) not in (0, BUCKETS):
            raise ValueError(
                f"got relative_attention_num_buckets={buckets}, expected 0 (none) or {BUCKETS}"
            )

    @property
    def table_width(self) -> int:
        """Returns the width of the word, position and segment vectors."""
        return self.embedding_size or self.hidden_size

    @property
    def has_biases(self) -> bool:
        """Returns whether linear layers and norms of blocks and of the MLM head have biases."""
        return self.modern is None

    @property
    def pooler_act(self) -> str:
        """Returns what comes after the pooler's linear layer: "tanh", "gelu" or "relu"."""
        return "tanh" if self.has_pooler else _POOLERS.get(self.family, "relu")

    @property
    def stored_layers(self) -> int:
        """Returns the number of blocks that have parameters of their own."""
        return 1 if self.shares_layers else self.num_hidden_layers


def check_sizes(config: Any, *names: str) -> None:
    """Raises ValueError where one of a net's sizes of these names is no size."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"got {name}={getattr(config, name)}, expected 1 or more")


def check_heads(width: int, heads: int, name: str) -> None:
    """Raises ValueError where `heads` do not divide `width`."""
    if heads < 1 or width % heads:
        raise ValueError(
            f"{name}={width} is not divisible by num_attention_heads={heads}; "
            f"choose {name}={max(1, width // max(heads, 1)) * max(heads, 1)} or another head count"
        )


def check_rotations(width: int, heads: int, name: str) -> None:
    """Raises ValueError where the numbers of a head are no pairs, which rotate."""
    if width // heads % 2:
        raise ValueError(
            f"{name}={width} with num_attention_heads={heads} gives heads of {width // heads} "
            "numbers, and rotary positions need an even number"
        )


def as_base(config: BertConfig) -> BertConfig:
    """Returns the sizes of a net that gets extension blocks: an exBERT, whatever it was before.

    Blocks and heads are the same; of its checkpoint only names and unread rows were others.
    """
    return dataclasses.replace(config, family="", position_offset=0)


@dataclasses.dataclass(frozen=True)
class ExtensionConfig:
    """Inner widths of the extension blocks; the residual stream keeps the base's width."""

    hidden_size: int  # of queries, keys and values
    intermediate_size: int
    num_attention_heads: int

    def __post_init__(self):
        check_sizes(self, "hidden_size", "intermediate_size")
        check_heads(self.hidden_size, self.num_attention_heads, "extension hidden_size")


@dataclasses.dataclass(frozen=True)
class ExBertConfig:
    """A base BERT, its extension blocks (None: no blocks), and the number of words added."""

    base: BertConfig
    extension: ExtensionConfig | None
    extension_vocab_size: int

    def __post_init__(self):
        # The extension's scores get the same bias as those beside them, head by head: then the
        # extension is a block of its teacher's kind, and can begin as a copy (`block_copy`).
        ours, theirs = self.score_heads
        if self.base.relative_attention_num_buckets and self.extension and ours != theirs:
            raise ValueError(
                f"extension.num_attention_heads={theirs} and the original has {ours}, whose scores "
                f"have a bias for each head: set extension.num_attention_heads={ours}"
            )

    @property
    def vocab_size(self) -> int:
        return self.base.vocab_size + self.extension_vocab_size

    @property
    def score_heads(self) -> tuple[int, int]:
        """Returns the number of original and extension heads in a tapped score tensor."""
        return (
            self.base.num_attention_heads,
            self.extension.num_attention_heads if self.extension else 0,
        )


REMATS = ("none", "blocks")


ATTENTIONS = ("explicit", "fused")


@dataclasses.dataclass(frozen=True)
class Execution:
    """Choices between memory and time; of a run, not of a model, so no config.json knows them.

    Attributes:
      remat: "blocks" keeps only the input of each block for the backward pass, and computes what
        is inside once more there ("rematerialisation", Chen et al. 2016, Training deep nets with
        sublinear memory cost); "none" keeps all. On a CPU that helps only with
        XLA_FLAGS=--xla_cpu_enable_concurrency_optimized_scheduler=false: by default XLA orders a
        CPU's program for concurrency, and computes what is inside once more long before its time.
      attention: "fused" computes attention as one operation (`attention.py`) where no weights are
        dropped, and keeps no scores, also of layers that are tapped; "explicit" step by step.
    """

    remat: str = "none"
    attention: str = "explicit"

    def __post_init__(self):
        for name, choices in (("remat", REMATS), ("attention", ATTENTIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"config.{name}={getattr(self, name)!r} is not one of {', '.join(choices)}"
                )

    def check_bias(self, config: BertConfig) -> None:
        """Raises ValueError where fused attention would leave out what is added to scores.

        It could be given that, but losses of scores are then found from queries and keys alone.
        """
        if self.attention == "fused" and config.relative_attention_num_buckets:
            raise ValueError(
                "config.attention='fused' knows no bias of relative positions, and the teacher (as "
                "MPNet's nets) adds one to its scores; take --config.attention=explicit"
            )

    def check_packed(self, packed: bool) -> None:
        """Raises ValueError where fused attention would look across the documents of a row."""
        if self.attention == "fused" and packed:
            raise ValueError(
                "config.attention='fused' knows the lengths of rows and not where documents begin "
                "in them, and config.rows.packed=True has several in a row; take "
                "--config.attention=explicit, or --config.rows.packed=False"
            )

    def check_dropout(self, net: str, rate: float | None) -> None:
        """Raises ValueError where a net that learns would drop weights of fused attention.

        Args:
          net: "teacher" or "student".
          rate: of the dropout of attention weights; None: not known yet.
        """
        if self.attention == "fused" and rate:
            raise ValueError(
                f"config.attention='fused' cannot drop attention weights, and the {net}'s rate is "
                f"{rate}; set --config.{net}.attention_probs_dropout_prob=0.0, or take "
                "--config.attention=explicit"
            )
