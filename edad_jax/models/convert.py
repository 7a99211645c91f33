# SPDX-License-Identifier: Apache-2.0
"""Weights in and out: Hugging Face checkpoints <-> our parameter trees.

A checkpoint and a parameter tree differ in names and in the orientation of kernels (torch
keeps `[out, in]`, flax `[in, out]`). What differs between families of checkpoints is the
names only, so each family is one table in `names`; the code that walks it is shared. The sizes
say which family a net is written as: `config_json.family_of`.

Nothing is guessed: a tensor that is missing, left over or of another shape is an error that
lists every such tensor. Heads that a config lets start from random are named in `fresh`.
"""

import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from edad_jax.models.config import BertConfig, ExBertConfig
from edad_jax.models.config_json import family_of
from edad_jax.models.exbert import ExBert
from edad_jax.models.hf_files import Checkpoint, is_floating
from edad_jax.models.names import (
    HEADS,
    LEAVES,
    TABLES,
    TASK_HEADS,
    NameTable,
    bare_names,
    join,
    modules_of,
)
from edad_jax.types import MaskedBatch

_WORDS, _ADDED_WORDS = "base/embeddings/word/embedding", "extension/word/embedding"
_POSITIONS = "base/embeddings/position/embedding"
_POOLER = "pooler/dense"


def name_table(config: ExBertConfig) -> NameTable:
    """Returns the names that an encoder of these sizes has in a checkpoint.

    Raises:
      ValueError: no family of checkpoints has such an encoder.
    """
    return TABLES[family_of(config.base, extended=config.extension is not None)]


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
    """Returns {"base", "pooler", "mlm", "nsp"} from a checkpoint, less the `fresh` heads.

    Takes names with and without `bert.` (`roberta.` and so on), and the old `gamma` and
    `beta` of LayerNorm. A tied decoder may be in the file or not; where it is, it must equal what
    it is tied to. A net without pooler has only "base" and "mlm".

    Args:
      checkpoint: of one of `config_json.FAMILIES`.
      config: sizes, usually `bert_config(checkpoint.config)`.
      fresh: heads out of "pooler", "mlm", "nsp" that are to start from random values. They
        are left out of the result, whether the checkpoint has them or not. An ALBERT has no
        "nsp": its own head tells the order of two sentences, and is left behind.

    Raises:
      ValueError: lists every missing, left-over and wrongly shaped tensor.
    """
    unknown = set(fresh) - set(HEADS)
    if unknown:
        raise ValueError(f"fresh names {sorted(unknown)}; it may name {', '.join(HEADS)}")
    plain = ExBertConfig(base=config, extension=None, extension_vocab_size=0)
    return _from_bare_names(
        bare_names(checkpoint.tensors, name_table(plain)),
        plain,
        heads=[head for head in HEADS if head not in fresh and _is_pretrained(head, config)],
        source=str(checkpoint.directory),
        advise_fresh=True,
    )


def encoder_params(
    checkpoint: Checkpoint, config: ExBertConfig, *, with_pooler: bool
) -> dict[str, Any]:
    """Returns {"base", "extension", "pooler"}; heads that sit on the encoder are left behind.

    Args:
      checkpoint: of one of `config_json.FAMILIES`, or of a model that this project exported.
      config: its sizes.
      with_pooler: whether to take the pooler; where the checkpoint has none there is none in
        the result either.

    Raises:
      ValueError: lists every missing, left-over and wrongly shaped tensor of the encoder.
    """
    table = name_table(config)
    tensors = bare_names(checkpoint.tensors, table)
    poolers = table.heads["pooler"]
    heads = ["pooler"] if with_pooler and any(name.startswith(poolers) for name in tensors) else []
    others = (*table.outside, *TASK_HEADS)
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if (heads and name.startswith(poolers)) or not name.startswith(others)
    }
    return _from_bare_names(tensors, config, heads=heads, source=str(checkpoint.directory))


def to_torch_names(
    params: Mapping[str, Any],
    config: ExBertConfig,
    *,
    labels: int = 0,
    classifier: str = "classifier",
) -> dict[str, np.ndarray]:
    """Returns the tensors of an exBERT under torch's names, in torch's orientation.

    The word table is the base's rows and then the added ones. Without extension blocks the
    result is an ordinary BERT (`bert.*`, `cls.*`; BertForPreTraining without the tied decoder) or
    one of its kin, as its sizes say. With them, `bert.encoder.extension_layer.*` and
    `bert.encoder.gate.*` stand beside it, as `export/modeling_exbert.py` reads them. Positions that
    no piece reads are zeros. Heads that `params` lacks are left out; with `labels` there must be a
    classifier of so many classes, which torch calls `classifier` or qa_outputs.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in _flatten(params).items()}
    if _WORDS in leaves and _ADDED_WORDS in leaves:
        leaves[_WORDS] = np.concatenate([leaves[_WORDS], leaves.pop(_ADDED_WORDS)])
    if config.base.position_offset and _POSITIONS in leaves:
        unread_ud = np.zeros_like(leaves[_POSITIONS], shape=_unread_shape(config))
        leaves[_POSITIONS] = np.concatenate([unread_ud, leaves[_POSITIONS]])
    heads = [head for head in HEADS if head in params]
    expected = _expected(config, heads=heads, labels=labels, classifier=classifier)
    names = {path: name for path, (name, _) in expected.items()}
    tensors = {names.get(path, path): _turned(path, leaf) for path, leaf in leaves.items()}
    _check(tensors, expected, source="the parameters")
    table = name_table(config)
    return {table.prefixed(name): tensor for name, tensor in join(tensors, table).items()}


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
        bare_names(tensors, name_table(config)),
        config,
        heads=[
            head
            for head in HEADS
            if head not in without
            and (_is_pretrained(head, config.base) or (head == "pooler" and labels))
        ],
        labels=labels,
        classifier=classifier,
        source=source,
    )


def _is_pretrained(head, config):
    """Returns whether the pretraining net has such a head."""
    return config.has_pooler or head == "mlm"


def _from_bare_names(
    tensors, config, *, heads, source, labels=0, classifier="classifier", advise_fresh=False
):
    table = name_table(config)
    tensors = _without_tied_decoder(tensors, table, check="mlm" in heads)
    read = tuple(start for head in heads for start in table.heads.get(head, ()))
    ignored = tuple(
        start for starts in table.heads.values() for start in starts if start not in read
    )
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if not (ignored and name.startswith(ignored))
    }
    expected = _expected(config, heads=heads, labels=labels, classifier=classifier)
    _check(tensors, expected, source=source, heads=table.heads if advise_fresh else {})
    leaves = {path: _turned(path, tensors[name]) for path, (name, _) in expected.items()}
    if config.base.position_offset:
        leaves[_POSITIONS] = leaves[_POSITIONS][config.base.position_offset :]
    if config.extension_vocab_size:
        base_rows = config.base.vocab_size
        table_vd = leaves[_WORDS]
        leaves[_WORDS], leaves[_ADDED_WORDS] = table_vd[:base_rows], table_vd[base_rows:]
    return _unflatten(leaves)


def _check(tensors, expected, *, source, heads=None):
    shapes = dict(expected.values())
    problems = {
        "missing": sorted(set(shapes) - set(tensors)),
        "left over": sorted(set(tensors) - set(shapes)),
        "wrong": [
            f"{name}: got {tensors[name].dtype} {list(tensors[name].shape)}, "
            f"expected floating-point {list(shape)}"
            for name, shape in sorted(shapes.items())
            if name in tensors and (tensors[name].shape != shape or not is_floating(tensors[name]))
        ],
    }
    if any(problems.values()):
        raise ValueError(_mismatch(source, problems, heads or {}))


def _mismatch(source, problems, known_heads):
    lines = [f"{source}: the tensors are not those that the model's sizes and heads call for"]
    for title, names in problems.items():
        if names:
            lines.append(f"{title} ({len(names)}):")
            lines += [f"  {name}" for name in names]
    missing = problems["missing"]
    heads = [head for head in known_heads if any(n.startswith(known_heads[head]) for n in missing)]
    if heads:
        option = "".join(f"'{head}'," for head in heads)
        lines.append(
            f"Should {' and '.join(heads)} start from random values? Then say so: "
            f'--config.teacher.random_heads="({option})"'
        )
    else:
        lines.append(
            "Pass a model whose config.json gives its own sizes, with no heads but those expected."
        )
    return "\n".join(lines)


def _expected(config, *, heads, labels, classifier):
    """Returns our path -> (torch's bare name, shape in torch's orientation).

    The word table is the joint one, as in torch.
    """
    table = name_table(config)
    modules = modules_of(table, config.base.stored_layers)
    modules["classifier/dense"] = (
        table.any_classifier or ("pooler" in heads and table.text_classifier) or classifier
    )
    shapes = dict(_shapes(config))
    width = config.base.hidden_size
    if "pooler" in heads:  # in a classifier it is there though the pretraining net has none
        other = "pooler/norm/scale" if config.base.modern else f"{_POOLER}/bias"
        shapes |= {f"{_POOLER}/kernel": (width, width), other: (width,)}
    if labels:
        shapes |= {"classifier/dense/kernel": (width, labels), "classifier/dense/bias": (labels,)}
    expected = {}
    for path, shape in shapes.items():
        module, leaf = path.rsplit("/", 1)
        top = path.split("/")[0]
        if module in modules and (top not in HEADS or top in heads):
            shape = shape[::-1] if leaf == "kernel" else shape
            expected[path] = (f"{modules[module]}.{LEAVES[leaf]}", shape)
    word_name, _ = expected[_WORDS]
    expected[_WORDS] = (word_name, (config.vocab_size, config.base.table_width))
    if config.base.position_offset:
        position_name, (positions, width) = expected[_POSITIONS]
        expected[_POSITIONS] = (position_name, (positions + config.base.position_offset, width))
    return expected


def _unread_shape(config):
    return config.base.position_offset, config.base.table_width


@functools.lru_cache(maxsize=8)
def _shapes(config):
    """Returns path -> shape of every parameter, asked of the model itself."""
    ids_bt = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    mask_bt = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    per_row_b = jax.ShapeDtypeStruct((1,), jnp.int32)
    batch = MaskedBatch(ids_bt, ids_bt, mask_bt, ids_bt, ids_bt, mask_bt, per_row_b)
    shapes = jax.eval_shape(ExBert(config, jnp.float32).init, jax.random.key(0), batch)
    return {path: leaf.shape for path, leaf in _flatten(shapes["params"]).items()}


def _without_tied_decoder(tensors, table, *, check):
    """Returns the tensors less the MLM decoder, once it is seen to be tied."""
    tensors = dict(tensors)
    bias_name = f"{table.modules['mlm']}.bias"
    word_table = f"{table.modules['base/embeddings/word']}.weight"
    tied = {f"{table.decoder}.weight": word_table, f"{table.decoder}.bias": bias_name}
    tied.pop(bias_name, None)  # DistilBERT's and ELECTRA's decoders have the bias itself
    copies = {copy: tensors.pop(copy) for copy in tied if copy in tensors}
    if not check:
        return tensors
    if f"{table.decoder}.bias" in copies:
        tensors.setdefault(bias_name, copies[f"{table.decoder}.bias"])
    for copy, tensor in copies.items():
        name = tied[copy]
        if name in tensors and not np.array_equal(tensor, tensors[name]):
            raise ValueError(
                f"{copy} differs from {name}; an MLM decoder that is "
                "not tied to the word table is not supported: let the head start afresh, "
                "--config.teacher.random_heads=\"('mlm',)\""
            )
    return tensors


def _turned(path, array):
    return np.ascontiguousarray(array.T) if path.endswith("/kernel") else array


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
