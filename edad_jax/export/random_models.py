# SPDX-License-Identifier: Apache-2.0
"""Well-known models with random weights, as ONNX: what benchmarks compare with."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from edad_jax.export import onnx
from edad_jax.export.session import MODEL_FILE
from edad_jax.models.bert import BertConfig
from edad_jax.models.exbert import ExBert, ExBertConfig

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
SIZES = {
    "bert-base": BertConfig(**_BERT_BASE),
    "distilbert": BertConfig(**_BERT_BASE | {"num_hidden_layers": 6, "type_vocab_size": 0}),
}


def write_random(folder: Path, sizes: BertConfig, *, int8: bool, seed: int = 0) -> Path:
    """Returns the folder, now an encoder that `runtime.Encoder` opens; its words mean nothing.

    Args:
      folder: where to.
      sizes: of SIZES, or others.
      int8: as `onnx.write_onnx` takes it.
      seed: of the weights.
    """
    config = ExBertConfig(base=sizes, extension=None, extension_vocab_size=0)
    ids = np.zeros((1, 2), np.int32)
    init = functools.partial(ExBert(config, jnp.float32).init, method="encode")
    shapes = jax.eval_shape(init, jax.random.key(0), ids, ids, ids == 0)["params"]
    random = np.random.default_rng(seed)

    def draw(path, shape):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        spread = np.float32(sizes.initializer_range)
        return random.standard_normal(shape.shape, np.float32) * spread + np.float32(centre)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.write_onnx(folder / MODEL_FILE, config, params, int8=int8)
    values = {
        "architectures": ["BertModel"],
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.hidden_size,
        "max_position_embeddings": sizes.max_position_embeddings,
    }
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces += [f"piece{number}" for number in range(sizes.vocab_size - len(pieces))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
