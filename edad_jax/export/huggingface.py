# SPDX-License-Identifier: Apache-2.0
"""A trained model as a directory that Hugging Face tools load.

Without extension blocks the model is an ordinary BERT or one of its kin, as its sizes say:
`models/config_json.py`. With them the directory brings its torch code along,
`modeling_exbert.py`, which `trust_remote_code=True` runs.
"""

import dataclasses
import errno
import importlib.resources
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from edad_jax.data.tokenizer import (
    SPECIAL_TOKENS,
    composing,
    is_bert_kind,
    is_phrase,
    load_tokenizer,
)
from edad_jax.export.card import ModelCard, readme
from edad_jax.files import read_json, replaced_folder, write_sums
from edad_jax.models.config import ExBertConfig
from edad_jax.models.config_json import check_padding, sizes_json
from edad_jax.models.convert import check_vocabulary, to_torch_names
from edad_jax.models.names import HEADS
from edad_jax.models.task import KINDS, Task, heads_between, write_task

TOKENIZER_FILES = (
    "vocab.txt",  # BERT's kind; other kinds are a tokenizer.json alone
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_AUTO_MAP = {
    "AutoConfig": "ExBertConfig",
    "AutoModel": "ExBertModel",
    "AutoModelForPreTraining": "ExBertForPreTraining",
    "AutoModelForMaskedLM": "ExBertForMaskedLM",
    "AutoModelForTokenClassification": "ExBertForTokenClassification",
    "AutoModelForSequenceClassification": "ExBertForSequenceClassification",
    "AutoModelForQuestionAnswering": "ExBertForQuestionAnswering",
}
MODELLING_FILE = "modeling_exbert.py"
_CLASSES = {
    "bert": "Bert",
    "distilbert": "DistilBert",
    "albert": "Albert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "electra": "Electra",
    "modernbert": "ModernBert",
    "mpnet": "MPNet",
    "exbert": "ExBert",
}


def save_model(
    directory: str | Path,
    params: Mapping[str, Any],
    config: ExBertConfig,
    tokenizer_dir: str | Path,
    *,
    card: ModelCard,
    task: Task | None = None,
    check: Callable[[Path], Any] | None = None,
) -> Path:
    """Returns the directory, now holding the model in Hugging Face layout.

    Writes config.json, model.safetensors, the tokenizer's files, README.md and, where the
    model has extension blocks, modeling_exbert.py. All is written beside the directory, which
    is then renamed into place: whatever stops this, the model that was there stays whole.

    Args:
      directory: where to; what was there is replaced.
      params: {"base", "extension", "pooler", "mlm", "nsp"}; heads may be left out. With a task
        the only heads are "classifier" and, where it reads the pooled vector, "pooler".
      config: the model's sizes.
      tokenizer_dir: with vocab.txt or tokenizer.json for exactly these words.
      card: what README.md says.
      task: what the model was fine-tuned for; None after pretraining.
      check: called with the folder before it takes its place; what it raises leaves all as it was.

    Raises:
      ValueError: the parameters or the tokenizer do not fit the sizes or the task.
      OSError: the files cannot be written.
    """
    directory = Path(directory).resolve()
    tokenizer_dir = Path(tokenizer_dir)
    values = config_json(params, config, tokenizer_dir, task)
    classes = (
        {"labels": len(task.labels), "classifier": KINDS[task.kind].classifier} if task else {}
    )
    tensors = to_torch_names(params, config, **classes)
    with replaced_folder(directory) as beside:
        write_config(beside / "config.json", values)
        _write_tensors(beside / "model.safetensors", tensors)
        copy_tokenizer(
            tokenizer_dir,
            beside,
            positions=config.base.max_position_embeddings,
            segments=config.base.type_vocab_size > 0,
        )
        (beside / "README.md").write_text(readme(card, config, task), encoding="utf-8")
        if config.extension:
            code = importlib.resources.files("edad_jax.export") / MODELLING_FILE
            (beside / MODELLING_FILE).write_bytes(code.read_bytes())
        if check:
            check(beside)
        write_sums(beside)
    return directory


def config_json(
    params: Mapping[str, Any],
    config: ExBertConfig,
    tokenizer_dir: Path,
    task: Task | None = None,
) -> dict[str, Any]:
    """Returns the config.json of a model; arguments and errors are those of `save_model`."""
    pad_token_id = _check_tokenizer(tokenizer_dir, config)
    heads = tuple(head for head in HEADS if head in params)
    classes = write_task(task) if task else {}
    expected = heads_between(task.kind, config.base) if task else heads
    if heads != expected:
        raise ValueError(
            f"got a {task.kind} model with heads {list(heads)}, expected {list(expected)} beside "
            "the classifier"
        )
    return _config_json(config, _architecture(config, heads, task), pad_token_id) | classes


def _architecture(config, heads, task):
    if task:
        return KINDS[task.kind].architecture
    if "mlm" not in heads:
        return "Model"
    # An ALBERT's second pretraining head is another than ours.
    return "ForPreTraining" if "nsp" in heads and not config.base.shares_layers else "ForMaskedLM"


def _config_json(config, architecture, pad_token_id):
    sizes = sizes_json(config.base, extended=config.extension is not None)
    check_padding(pad_token_id, config.base)
    values = {
        "architectures": [f"{_CLASSES[sizes['model_type']]}{architecture}"],
        "dtype": "float32",
        "pad_token_id": pad_token_id,
        **sizes,
        "vocab_size": config.vocab_size,
        "extension_vocab_size": config.extension_vocab_size,  # the last so many words were added
    }
    if config.extension:
        sizes = dataclasses.asdict(config.extension)
        values |= {f"extension_{name}": size for name, size in sizes.items()}
        module = MODELLING_FILE.removesuffix(".py")
        values["auto_map"] = {auto: f"{module}.{name}" for auto, name in _AUTO_MAP.items()}
    return values


def _check_tokenizer(tokenizer_dir, config):
    """Returns the id of the padding piece, once the tokenizer is seen to fit the model."""
    tokenizer = load_tokenizer(tokenizer_dir)  # with the words of added_tokens.json
    check_vocabulary(len(tokenizer), config)
    return tokenizer.pad_token_id


def copy_tokenizer(
    tokenizer_dir: Path, directory: Path, *, positions: int, segments: bool = True
) -> None:
    """Copies a tokenizer's files into a model's folder; AutoTokenizer gives the ids of training.

    Training reads composed text (NFC), so the tokenizer.json here composes. Of a BertTokenizer
    transformers 5 makes the normaliser anew from tokenizer_config.json, which has no word for
    that; the class named instead takes tokenizer.json as it is. Text that is to be cut is cut at
    the model's positions: an original tokenizer says how many its own model had, or nothing.

    Args:
      tokenizer_dir: has the files.
      directory: the model's.
      positions: of the model.
      segments: whether the model reads `token_type_ids`; a DistilBERT refuses them.
    """
    tokenizer = load_tokenizer(tokenizer_dir)
    for name in TOKENIZER_FILES if is_bert_kind(tokenizer) else ("tokenizer_config.json",):
        if (tokenizer_dir / name).is_file():
            shutil.copyfile(tokenizer_dir / name, directory / name)
    # Not its own `save`, whose error on a full disk is no OSError.
    (directory / "tokenizer.json").write_text(
        composing(tokenizer.backend_tokenizer).to_str(pretty=True), encoding="utf-8"
    )
    config = directory / "tokenizer_config.json"
    values = read_json(config, expected="a tokenizer's settings") if config.is_file() else {}
    specials = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS}
    names = [name for name in tokenizer.model_input_names if segments or name != "token_type_ids"]
    values = specials | values | {"model_input_names": names}
    _leave_phrases(directory / "added_tokens.json", values)
    values["model_max_length"] = min(int(tokenizer.model_max_length), positions)
    write_config(config, values | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _leave_phrases(path, settings):
    """Takes added tokens of several words out of what AutoTokenizer would add to tokenizer.json.

    It has them as pieces that no text comes to: see `data.tokenizer.load_tokenizer`.
    """
    known = settings.get("added_tokens_decoder")
    if isinstance(known, dict):
        settings["added_tokens_decoder"] = {
            number: token
            for number, token in known.items()
            if token.get("special") or not is_phrase(str(token.get("content")))
        }
    if path.is_file():
        added = read_json(path, expected="added tokens and their ids")
        write_config(path, {name: number for name, number in added.items() if not is_phrase(name)})


def _write_tensors(path, tensors):
    # safetensors 0.8 writes memory as it lies: of a view, other numbers than the array's, and
    # even what lies behind it (https://github.com/safetensors/safetensors/issues/825).
    whole = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    try:
        save_file(whole, path, metadata={"format": "pt"})
    except SafetensorError as error:  # what safetensors makes of a full disk
        raise OSError(errno.EIO, str(error)) from error
    shutil.copymode(path.with_name("config.json"), path)  # safetensors makes it private


def write_config(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file as Hugging Face's libraries do."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
