# SPDX-License-Identifier: Apache-2.0
"""A model from a folder or the hub: its sizes, its parameters, and its task.

The way back from `export.huggingface.save_model`, and the way in for models that others trained.
"""

import dataclasses
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edad_jax.files import recover_folder
from edad_jax.models.config import BertConfig, ExBertConfig, ExtensionConfig
from edad_jax.models.config_json import FAMILIES, bert_config, check_family
from edad_jax.models.convert import (
    encoder_params,
    from_torch_names,
    name_table,
)
from edad_jax.models.hf_files import load_checkpoint, local_folder
from edad_jax.models.names import HEADS
from edad_jax.models.task import KINDS, Task, heads_between, read_task

LOG = logging.getLogger(__name__)
_MOST_PADDING = 128  # rows


def load_model(
    directory: str | Path, *, without: Collection[str] = ()
) -> tuple[ExBertConfig, dict[str, Any]]:
    """Returns (sizes, parameters) of a model that `save_model` wrote, bit for bit.

    Args:
      directory: where the model is.
      without: heads out of "pooler", "mlm", "nsp" that need not be there and are not loaded.

    Raises:
      ValueError: not such a model, or a tensor is missing, left over or of another shape.
    """
    directory = Path(directory).resolve()
    recover_folder(directory)
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a directory; expected an exported model there")
    checkpoint = load_checkpoint(str(directory))
    config = exbert_config(checkpoint.config)
    return config, from_torch_names(checkpoint.tensors, config, without=without)


def load_task_model(
    path_or_hub_id: str | Path, *, option: str = "--config.teacher=DIR"
) -> tuple[ExBertConfig, dict[str, Any], Task]:
    """Returns (sizes, parameters, task) of a fine-tuned model.

    What `save_model` wrote with a task comes back bit for bit; a BertForTokenClassification or
    BertForSequenceClassification (or of its kin) that others trained is read too.

    Args:
      path_or_hub_id: the model.
      option: how an error says where the user named it.

    Raises:
      ValueError: no such model, not a fine-tuned one, or a tensor is missing, left over or of
        another shape.
    """
    checkpoint = _load(path_or_hub_id, option)
    config = _sizes(checkpoint.config)
    classifiers = {kind.classifier for kind in KINDS.values()} | {
        name_table(config).text_classifier
    }
    biases = (checkpoint.tensors.get(f"{classifier}.bias") for classifier in sorted(classifiers))
    bias = next((bias for bias in biases if bias is not None), ())
    task = read_task(checkpoint.config, classes=len(bias))
    params = from_torch_names(
        checkpoint.tensors,
        config,
        without=[head for head in HEADS if head not in heads_between(task.kind, config.base)],
        labels=len(task.labels),
        classifier=KINDS[task.kind].classifier,
        source=str(checkpoint.directory),
    )
    return config, params, task


def load_encoder(
    path_or_hub_id: str,
    *,
    with_pooler: bool,
    hidden_dropout_prob: float | None = None,
    attention_probs_dropout_prob: float | None = None,
    option: str = "--config.model=DIR",
) -> tuple[ExBertConfig, dict[str, Any], bool]:
    """Returns (sizes, parameters, whether the pooler must start afresh) of an encoder.

    Takes what this project exported and any net of `config_json.FAMILIES` in Hugging Face layout,
    pretrained or fine-tuned; their other heads are left behind.

    Args:
      path_or_hub_id: the model.
      with_pooler: whether "pooler" is wanted beside "base" and "extension". Where the model has
        none it is left out, and the third value is True.
      hidden_dropout_prob: instead of the model's own; None keeps that.
      attention_probs_dropout_prob: likewise.
      option: how an error says where the user named the model.

    Raises:
      ValueError: no such model, or a tensor of the encoder is missing, left over or of another
        shape.
    """
    checkpoint = _load(path_or_hub_id, option)
    config = _sizes(
        checkpoint.config,
        hidden_dropout_prob=hidden_dropout_prob,
        attention_probs_dropout_prob=attention_probs_dropout_prob,
    )
    params = encoder_params(checkpoint, config, with_pooler=with_pooler)
    return config, params, with_pooler and "pooler" not in params


def cut_padding(
    config: ExBertConfig, params: Mapping[str, Any], tokenizer_size: int, source: str
) -> tuple[ExBertConfig, dict[str, Any]]:
    """Returns sizes and parameters without the rows that only round a word table up.

    Tables are often padded to a multiple of 8, 64 or 128, for tensor cores; no id points there.
    More than that, or fewer rows than pieces, is another vocabulary, and stays as it is: it is an
    error of who needs both.

    Args:
      config: sizes of a model; one with added words stays as it is.
      params: of the model: "base", and maybe "mlm".
      tokenizer_size: pieces of its tokenizer.
      source: what the log calls the model.
    """
    surplus = config.vocab_size - tokenizer_size
    if config.extension_vocab_size or not 0 < surplus <= _MOST_PADDING:
        return config, dict(params)
    LOG.info(
        "%s: of %s rows of the word table the last %d are padding; they are left out.",
        *(source, f"{config.vocab_size:,}", surplus),
    )
    embeddings = params["base"]["embeddings"]
    table_vd = embeddings["word"]["embedding"][:tokenizer_size]
    cut = dict(params)
    cut["base"] = params["base"] | {"embeddings": embeddings | {"word": {"embedding": table_vd}}}
    if "mlm" in params:
        cut["mlm"] = params["mlm"] | {"bias": params["mlm"]["bias"][:tokenizer_size]}
    base = dataclasses.replace(config.base, vocab_size=tokenizer_size)
    return dataclasses.replace(config, base=base), cut


def tokenizer_folder(path_or_hub_id: str, *, option: str = "--config.model=DIR") -> Path:
    """Returns the local directory that holds a model's tokenizer, as `save_model` wants it.

    Raises:
      ValueError: no such model; tells to use `option`.
    """
    return local_folder(path_or_hub_id, option=option)


def exbert_config(config_json: Mapping[str, Any]) -> ExBertConfig:
    """Returns the sizes that the config.json of an exported model gives.

    Raises:
      ValueError: the config.json is of another kind of model.
    """
    family = config_json.get("model_type")
    check_family(family, (*FAMILIES, "exbert"), "pass a model that edad_jax exported")
    try:
        added_words = config_json.get("extension_vocab_size", 0)
        if family != "exbert":
            base, extension = bert_config(config_json), None
        else:
            base = BertConfig(
                **{
                    field.name: config_json[field.name]
                    for field in dataclasses.fields(BertConfig)
                    if field.name in config_json or field.default is dataclasses.MISSING
                }
            )
            extension = ExtensionConfig(
                **{
                    field.name: config_json[f"extension_{field.name}"]
                    for field in dataclasses.fields(ExtensionConfig)
                }
            )
    except KeyError as error:
        raise ValueError(f"config.json lacks {error}; export the model again") from error
    base = dataclasses.replace(base, vocab_size=base.vocab_size - added_words)
    return ExBertConfig(base, extension, added_words)


def _load(path_or_hub_id, option):
    recover_folder(Path(path_or_hub_id).expanduser().resolve())
    return load_checkpoint(str(path_or_hub_id), option=option)


def _sizes(config_json, **rates):
    """Returns the sizes of one of our models or of anyone's, with these dropout rates."""
    if "extension_vocab_size" not in config_json:
        return ExBertConfig(bert_config(config_json, **rates), None, 0)
    config = exbert_config(config_json)
    rates = {name: rate for name, rate in rates.items() if rate is not None}
    return dataclasses.replace(config, base=dataclasses.replace(config.base, **rates))
