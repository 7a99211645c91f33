# SPDX-License-Identifier: Apache-2.0
"""The sizes and options of an encoder: BERT's (Devlin et al. 2019), and those of its kin.

DistilBERT (Sanh et al. 2019)   type_vocab_size=0, has_pooler=False
ALBERT (Lan et al. 2020)        shares_layers=True, embedding_size=128, hidden_act="gelu_new"
"""

import dataclasses

ACTIVATIONS = ("gelu", "gelu_new")  # by the error function, as in BERT; by tanh, as in ALBERT


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

    def __post_init__(self):
        """Raises ValueError where the heads do not divide the width, or for another activation."""
        check_heads(self.hidden_size, self.num_attention_heads, "hidden_size")
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(
                f"got hidden_act={self.hidden_act!r}, expected one of {', '.join(ACTIVATIONS)}"
            )
        for name in ("type_vocab_size", "embedding_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"got {name}={getattr(self, name)}, expected 0 (none) or more")

    @property
    def table_width(self) -> int:
        """Returns the width of the word, position and segment vectors."""
        return self.embedding_size or self.hidden_size

    @property
    def stored_layers(self) -> int:
        """Returns the number of blocks that have parameters of their own."""
        return 1 if self.shares_layers else self.num_hidden_layers


def check_heads(width: int, heads: int, name: str) -> None:
    """Raises ValueError where `heads` do not divide `width`."""
    if heads < 1 or width % heads:
        raise ValueError(
            f"{name}={width} is not divisible by num_attention_heads={heads}; "
            f"choose {name}={max(1, width // max(heads, 1)) * max(heads, 1)} or another head count"
        )
