# SPDX-License-Identifier: Apache-2.0
"""Folders as sentence-transformers and transformers.js lay them out.

sentence-transformers   Hugging Face's layout; modules.json, 1_Pooling, 2_Normalize and
                        config_sentence_transformers.json: the vector of a text is the mean of
                        its pieces, [CLS] and [SEP] among them, of length 1
transformers.js         config.json, tokenizer.json; onnx/model.onnx in 32 bits, and in eight
                        onnx/model_quantized.onnx
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from edad_jax.export.huggingface import write_config
from edad_jax.files import SUMS, replaced_folder, write_sums
from edad_jax.models.config import ExBertConfig
from edad_jax.runtime.models import MODEL_FILE

SENTENCES, TRANSFORMERS_JS = FORMATS = ("sentence-transformers", "transformers.js")
_OF_SENTENCES = {
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling",
    "2_Normalize",
}
FILES = _OF_SENTENCES | {"onnx"}  # what is in such folders beside the files of others
_MODULES = ("Transformer", "Pooling", "Normalize")
_PARTS = {"onnx": "model.onnx", "onnx-int8": "model_quantized.onnx"}


def write_sentence_transformers(folder: Path, config: ExBertConfig) -> None:
    """Adds what sentence-transformers reads to a folder in Hugging Face's layout."""
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{name}" if number else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for number, name in enumerate(_MODULES)
    ]
    write_config(folder / "modules.json", modules)
    positions = config.base.max_position_embeddings
    write_config(
        folder / "sentence_bert_config.json",
        {"max_seq_length": positions, "do_lower_case": False},  # the tokenizer's own business
    )
    write_config(
        folder / "config_sentence_transformers.json",
        {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    (folder / "1_Pooling").mkdir()
    write_config(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": config.base.hidden_size,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "include_prompt": True,
        },
    )
    (folder / "2_Normalize").mkdir()
    write_config(folder / "2_Normalize" / "config.json", {})  # git keeps no empty folder


def write_transformers_js(out: Path, write: Callable[[str, Path], Path]) -> Path:
    """Returns the folder, which now has both models as transformers.js looks for them.

    Args:
      out: folder to write.
      write: exports the model in a format ("onnx", "onnx-int8") to a folder, and returns it.
    """
    with replaced_folder(out) as beside, tempfile.TemporaryDirectory(dir=out.parent) as parts:
        (beside / "onnx").mkdir()
        for part, name in _PARTS.items():
            folder = write(part, Path(parts) / part)
            os.replace(folder / MODEL_FILE, beside / "onnx" / name)
            (folder / SUMS).unlink(missing_ok=True)
            for path in folder.iterdir():  # of the last, which tells more: that of int8
                shutil.copyfile(path, beside / path.name)
        write_sums(beside)
    return out
