# SPDX-License-Identifier: Apache-2.0
"""Weights in and out: Hugging Face checkpoints <-> our parameter trees.

A checkpoint and a parameter tree differ in names and in the orientation of kernels (torch
keeps `[out, in]`, flax `[in, out]`). What differs between families of checkpoints is the
names only, so each family is one table in `names`; the code that walks it is shared.

Nothing is guessed: a tensor that is missing, left over or of another shape is an error that
lists every such tensor. Heads that a config lets start from random are named in `fresh`.
"""

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from edad_jax.models.bert import BertConfig
from edad_jax.models.exbert import ExBert, ExBertConfig
from edad_jax.models.names import (
    BERT,
    EXBERT,
    HEADS,
    LEAVES,
    TASK_HEADS,
    bare_names,
    modules_of,
    prefixed,
)
from edad_jax.types import MaskedBatch

_SAFETENSORS, _TORCH_FILE = "model.safetensors", "pytorch_model.bin"
_SIDE_FILES = ["*.json", "vocab.txt"]  # config.json and the tokenizer
_HUB_TIMEOUT_SECONDS = 10.0
_WORDS, _ADDED_WORDS = "base/embeddings/word/embedding", "extension/word/embedding"
_WORD_TABLE = "embeddings.word_embeddings.weight"
_MLM_BIAS = "cls.predictions.bias"
_DECODER = "cls.predictions.decoder."  # tied: to the word table and to the MLM bias


class Checkpoint(NamedTuple):
    """A model as it lies on disk: what config.json says, and its tensors under torch's names."""

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]  # floating-point tensors are float32
    directory: Path


def load_checkpoint(
    path_or_hub_id: str, *, option: str = "--config.teacher.checkpoint=DIR"
) -> Checkpoint:
    """Returns the checkpoint in a local directory, or of a model on the Hugging Face hub.

    Reads config.json with model.safetensors, its sharded form, or pytorch_model.bin (with
    torch, tensors only: no code in the file is run). Half-precision tensors become float32.

    Args:
      path_or_hub_id: the model.
      option: how an error says where the user named it.

    Raises:
      ValueError: no such directory and the hub does not answer; no weights; unreadable weights.
    """
    directory = local_folder(path_or_hub_id, option=option)
    config = read_json(directory / "config.json")
    tensors = {
        name: tensor.astype(np.float32) if _is_floating(tensor) else tensor
        for name, tensor in _read_tensors(directory).items()
    }
    return Checkpoint(config, tensors, directory)


def local_folder(path_or_hub_id: str, *, option: str) -> Path:
    """Returns the local directory of a model, fetched from the hub where it is not one yet.

    Raises:
      ValueError: no such directory and the hub does not answer; tells to use `option`.
    """
    directory = Path(path_or_hub_id).expanduser()
    return directory if directory.is_dir() else _download(path_or_hub_id, option)


def bert_config(
    config_json: Mapping[str, Any],
    *,
    hidden_dropout_prob: float | None = None,
    attention_probs_dropout_prob: float | None = None,
) -> BertConfig:
    """Returns the sizes that a BERT's config.json gives; dropout rates may be overridden.

    Where config.json is silent, layer_norm_eps, initializer_range, type_vocab_size and the
    dropout rates are BERT's (1e-12, 0.02, 2, 0.1), as the file format defines.

    Raises:
      ValueError: another model family, activation or kind of positions; a size is missing.
    """
    supported = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in supported.items():
        if config_json.get(key, value) != value:
            raise ValueError(
                f"config.json says {key}={config_json[key]!r}, expected {value!r}: "
                f"choose a checkpoint of the BERT family that has it"
            )
    values = {
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
        **config_json,
    }
    overrides = {
        "hidden_dropout_prob": hidden_dropout_prob,
        "attention_probs_dropout_prob": attention_probs_dropout_prob,
    }
    values |= {key: rate for key, rate in overrides.items() if rate is not None}
    names = [field.name for field in dataclasses.fields(BertConfig)]
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)}; expected a BERT's config.json")
    return BertConfig(**{name: values[name] for name in names})


def check_vocabulary(tokenizer_size: int, config: BertConfig | ExBertConfig) -> None:
    """Raises ValueError where a tokenizer has not exactly one piece for each row of the table."""
    if tokenizer_size != config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer_size} pieces, the model's word table "
            f"{config.vocab_size} rows: pass the vocabulary that the model was trained with "
            "(--config.vocabulary.base or --config.prepared must fit --config.teacher.checkpoint)"
        )


def bert_params(
    checkpoint: Checkpoint, config: BertConfig, *, fresh: Collection[str] = ()
) -> dict[str, Any]:
    """Returns {"base", "pooler", "mlm", "nsp"} from a BERT checkpoint, less the `fresh` heads.

    Takes names with and without `bert.`, and the old `gamma` and `beta` of LayerNorm. A tied
    decoder may be in the file or not; where it is, it must equal what it is tied to.

    Args:
      checkpoint: of the BERT family.
      config: sizes, usually `bert_config(checkpoint.config)`.
      fresh: heads out of "pooler", "mlm", "nsp" that are to start from random values. They
        are left out of the result, whether the checkpoint has them or not.

    Raises:
      ValueError: lists every missing, left-over and wrongly shaped tensor.
    """
    unknown = set(fresh) - set(HEADS)
    if unknown:
        raise ValueError(f"fresh names {sorted(unknown)}; it may name {', '.join(HEADS)}")
    plain = ExBertConfig(base=config, extension=None, extension_vocab_size=0)
    tensors = bare_names(checkpoint.tensors)
    return _from_bare_names(
        tensors, plain, without=fresh, source=str(checkpoint.directory), advise_fresh=True
    )


def encoder_params(
    checkpoint: Checkpoint, config: ExBertConfig, *, with_pooler: bool
) -> dict[str, Any]:
    """Returns {"base", "extension", "pooler"}; heads that sit on the encoder are left behind.

    Args:
      checkpoint: of the BERT family, or of a model that this project exported.
      config: its sizes.
      with_pooler: whether to take the pooler; where the checkpoint has none there is none in
        the result either.

    Raises:
      ValueError: lists every missing, left-over and wrongly shaped tensor of the encoder.
    """
    tensors = {
        name: tensor
        for name, tensor in bare_names(checkpoint.tensors).items()
        if not name.startswith(("cls.", *TASK_HEADS))
    }
    pooled = with_pooler and any(name.startswith(HEADS["pooler"]) for name in tensors)
    without = [head for head in HEADS if head != "pooler" or not pooled]
    return _from_bare_names(tensors, config, without=without, source=str(checkpoint.directory))


def to_torch_names(
    params: Mapping[str, Any],
    config: ExBertConfig,
    *,
    labels: int = 0,
    classifier: str = "classifier",
) -> dict[str, np.ndarray]:
    """Returns the tensors of an exBERT under torch's names, in torch's orientation.

    The word table is the base's rows and then the added ones. Without extension blocks the
    result is an ordinary BERT (`bert.*`, `cls.*`; BertForPreTraining without the tied decoder).
    With them, `bert.encoder.extension_layer.*` and `bert.encoder.gate.*` stand beside it, as
    `export/modeling_exbert.py` reads them. Heads that `params` lacks are left out; with `labels`
    there must be a classifier of so many classes, which torch calls `classifier` or qa_outputs.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in _flatten(params).items()}
    if _WORDS in leaves and _ADDED_WORDS in leaves:
        leaves[_WORDS] = np.concatenate([leaves[_WORDS], leaves.pop(_ADDED_WORDS)])
    without = [head for head in HEADS if head not in params]
    expected = _expected(config, without=without, labels=labels, classifier=classifier)
    names = {path: name for path, (name, _) in expected.items()}
    tensors = {names.get(path, path): _turned(path, leaf) for path, leaf in leaves.items()}
    _check(tensors, expected, source="the parameters")
    return {prefixed(name): tensor for name, tensor in tensors.items()}


def from_torch_names(
    tensors: Mapping[str, np.ndarray],
    config: ExBertConfig,
    *,
    without: Collection[str] = (),
    labels: int = 0,
    classifier: str = "classifier",
    source: str = "the file",
) -> dict[str, Any]:
    """Returns the parameters that `to_torch_names` wrote, bit for bit.

    Args:
      tensors: a whole file.
      config: the sizes of that model.
      without: heads out of "pooler", "mlm", "nsp" to leave out.
      labels: classes of its classifier; 0 for a model that has none.
      classifier: what torch calls that.
      source: what an error calls the file.

    Raises:
      ValueError: lists every missing, left-over and wrongly shaped tensor.
    """
    return _from_bare_names(
        bare_names(tensors),
        config,
        without=without,
        labels=labels,
        classifier=classifier,
        source=source,
    )


def _from_bare_names(
    tensors, config, *, without, source, labels=0, classifier="classifier", advise_fresh=False
):
    tensors = _without_tied_decoder(tensors, check="mlm" not in without)
    ignored = tuple(HEADS[head] for head in without)
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if not (ignored and name.startswith(ignored))
    }
    expected = _expected(config, without=without, labels=labels, classifier=classifier)
    _check(tensors, expected, source=source, advise_fresh=advise_fresh)
    leaves = {path: _turned(path, tensors[name]) for path, (name, _) in expected.items()}
    if config.extension_vocab_size:
        base_rows = config.base.vocab_size
        table_vd = leaves[_WORDS]
        leaves[_WORDS], leaves[_ADDED_WORDS] = table_vd[:base_rows], table_vd[base_rows:]
    return _unflatten(leaves)


def _check(tensors, expected, *, source, advise_fresh=False):
    shapes = dict(expected.values())
    problems = {
        "missing": sorted(set(shapes) - set(tensors)),
        "left over": sorted(set(tensors) - set(shapes)),
        "wrong": [
            f"{name}: got {tensors[name].dtype} {list(tensors[name].shape)}, "
            f"expected floating-point {list(shape)}"
            for name, shape in sorted(shapes.items())
            if name in tensors and (tensors[name].shape != shape or not _is_floating(tensors[name]))
        ],
    }
    if any(problems.values()):
        raise ValueError(_mismatch(source, problems, advise_fresh))


def _mismatch(source, problems, advise_fresh):
    lines = [f"{source}: the tensors are not those that the model's sizes and heads call for"]
    for title, names in problems.items():
        if names:
            lines.append(f"{title} ({len(names)}):")
            lines += [f"  {name}" for name in names]
    missing = problems["missing"]
    heads = [head for head, prefix in HEADS.items() if any(n.startswith(prefix) for n in missing)]
    if heads and advise_fresh:
        option = "".join(f"'{head}'," for head in heads)
        lines.append(
            f"Should {' and '.join(heads)} start from random values? Then say so: "
            f'--config.teacher.fresh="({option})"'
        )
    else:
        lines.append(
            "Pass a BERT whose config.json gives its own sizes, with no heads but those expected."
        )
    return "\n".join(lines)


def _expected(config, *, without, labels, classifier):
    """Returns our path -> (torch's bare name, shape in torch's orientation).

    The word table is the joint one, as in torch.
    """
    modules = modules_of(EXBERT if config.extension else BERT, config.base.num_hidden_layers)
    modules["classifier/dense"] = classifier
    shapes = dict(_shapes(config))
    if labels:
        shapes["classifier/dense/kernel"] = (config.base.hidden_size, labels)
        shapes["classifier/dense/bias"] = (labels,)
    expected = {}
    for path, shape in shapes.items():
        module, leaf = path.rsplit("/", 1)
        if module in modules and path.split("/")[0] not in without:
            shape = shape[::-1] if leaf == "kernel" else shape
            expected[path] = (f"{modules[module]}.{LEAVES[leaf]}", shape)
    word_name, _ = expected[_WORDS]
    expected[_WORDS] = (word_name, (config.vocab_size, config.base.hidden_size))
    return expected


@functools.lru_cache(maxsize=8)
def _shapes(config):
    """Returns path -> shape of every parameter, asked of the model itself."""
    ids_bt = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    mask_bt = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    per_row_b = jax.ShapeDtypeStruct((1,), jnp.int32)
    batch = MaskedBatch(ids_bt, ids_bt, mask_bt, ids_bt, ids_bt, mask_bt, per_row_b)
    shapes = jax.eval_shape(ExBert(config, jnp.float32).init, jax.random.key(0), batch)
    return {path: leaf.shape for path, leaf in _flatten(shapes["params"]).items()}


def _without_tied_decoder(tensors, *, check):
    """Returns the tensors less the MLM decoder, once it is seen to be tied."""
    tensors = dict(tensors)
    weight = tensors.pop(_DECODER + "weight", None)
    bias = tensors.pop(_DECODER + "bias", None)
    if not check:
        return tensors
    if bias is not None:
        tensors.setdefault(_MLM_BIAS, bias)
    for copy, name in ((weight, _WORD_TABLE), (bias, _MLM_BIAS)):
        if copy is not None and name in tensors and not np.array_equal(copy, tensors[name]):
            raise ValueError(
                f"{_DECODER}{name.rsplit('.', 1)[1]} differs from {name}; an MLM decoder that is "
                "not tied to the word table is not supported: let the head start afresh, "
                "--config.teacher.fresh=\"('mlm',)\""
            )
    return tensors


def _turned(path, array):
    return np.ascontiguousarray(array.T) if path.endswith("/kernel") else array


def _is_floating(array):
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _flatten(tree, prefix=""):
    leaves = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _flatten(value, f"{prefix}{name}/")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def _unflatten(leaves):
    tree = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def read_json(path: Path) -> dict[str, Any]:
    """Returns a JSON file of a model's folder.

    Raises:
      ValueError: it is not there, or no JSON; says what such a folder has.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: {error}; expected a model in Hugging Face layout "
            f"(config.json beside {_SAFETENSORS})"
        ) from error


def _read_tensors(directory):
    for name, read in ((_SAFETENSORS, _read_safetensors), (_TORCH_FILE, _read_torch_file)):
        if (directory / name).is_file():
            return read(directory / name)
        index = directory / f"{name}.index.json"
        if index.is_file():
            tensors = {}
            for shard in sorted(set(read_json(index)["weight_map"].values())):
                tensors |= read(directory / shard)
            return tensors
    raise ValueError(
        f"{directory} has neither {_SAFETENSORS} (or its index) nor {_TORCH_FILE}; "
        "expected a model in Hugging Face layout"
    )


def _read_safetensors(path):
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}; fetch the checkpoint again") from error


def _read_torch_file(path):
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path} is a torch file and torch is not installed here. Where it is, run in that "
            'directory: python -c "import torch, safetensors.torch as s; s.save_file({k: '
            "v.contiguous().clone() for k, v in torch.load('pytorch_model.bin', "
            "weights_only=True).items()}, 'model.safetensors')\""
        ) from error
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here
        raise ValueError(f"{path} cannot be read as plain tensors: {error}") from error
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in tensors.items()
    }


def _download(hub_id, option):
    """Returns the local directory of a model from the hub, or from its cache where offline."""
    import huggingface_hub

    patterns = [*_SIDE_FILES, _SAFETENSORS, "model-*.safetensors"]
    try:
        # snapshot_download itself knows no time limit, so ask something small first.
        model = huggingface_hub.HfApi().model_info(hub_id, timeout=_HUB_TIMEOUT_SECONDS)
        if not any(file.rfilename.endswith(".safetensors") for file in model.siblings or ()):
            patterns = [*_SIDE_FILES, _TORCH_FILE, "pytorch_model-*.bin"]
        directory = huggingface_hub.snapshot_download(hub_id, allow_patterns=patterns)
    except Exception as error:  # offline, no such model, no access: the cache may have it
        try:
            directory = huggingface_hub.snapshot_download(
                hub_id, allow_patterns=patterns, local_files_only=True
            )
        except Exception:
            reason = (str(error).strip() or "no answer").splitlines()[0]
            raise ValueError(
                f"{hub_id!r} is neither a directory here nor a model that the Hugging Face hub "
                f"hands out ({type(error).__name__}: {reason}); pass a local directory: "
                f"{option}"
            ) from error
    return Path(directory)
