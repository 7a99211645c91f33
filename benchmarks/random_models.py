# SPDX-License-Identifier: Apache-2.0
"""Well-known models with random weights, as ONNX: what benchmarks compare with."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from edad_jax.export import onnx
from edad_jax.files import file_checksum, write_json
from edad_jax.models.config import BertConfig, ExBertConfig, ExtensionConfig
from edad_jax.models.exbert import ExBert
from edad_jax.runtime.session import MODEL_FILE

_BERT_BASE = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3_072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
}
_STUDENT = {
    "num_hidden_layers": 4,
    "hidden_size": 312,
    "intermediate_size": 1_200,
    "has_pooler": False,
}
SIZES = {
    "bert-base": ExBertConfig(BertConfig(**_BERT_BASE), None, 0),
    "distilbert": ExBertConfig(
        BertConfig(**_BERT_BASE | {"num_hidden_layers": 6, "type_vocab_size": 0}), None, 0
    ),
    # The paper's student, as configs/edad.py has it.
    "edad-student": ExBertConfig(
        BertConfig(**_BERT_BASE | _STUDENT), ExtensionConfig(96, 400, 12), 17_658
    ),
}


def write_random(folder: Path, config: ExBertConfig, *, int8: bool, seed: int = 0) -> Path:
    """Returns the folder, now what `runtime.models.Encoder` opens; its words mean nothing.

    Args:
      folder: where to.
      config: of SIZES, or others.
      int8: as `onnx.build_onnx` takes it.
      seed: of the weights.
    """
    ids = np.zeros((1, 2), np.int32)
    init = functools.partial(ExBert(config, jnp.float32).init, method="encode")
    shapes = jax.eval_shape(init, jax.random.key(0), ids, ids, ids == 0)["params"]
    random = np.random.default_rng(seed)

    def draw(path, shape):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        spread = np.float32(config.base.initializer_range)
        return random.standard_normal(shape.shape, np.float32) * spread + np.float32(centre)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    folder.mkdir(parents=True, exist_ok=True)
    graph = onnx.build_onnx(config, params, int8=int8)
    (folder / MODEL_FILE).write_bytes(graph.SerializeToString())
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces += [f"piece{number}" for number in range(config.vocab_size - len(pieces))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    values = {
        "architectures": ["BertModel"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.base.hidden_size,
        "max_position_embeddings": config.base.max_position_embeddings,
        "tokenizer_sha256": file_checksum(folder / "tokenizer.json"),
    }
    write_json(folder / "config.json", values)
    return folder
