# SPDX-License-Identifier: Apache-2.0
"""Extension blocks that begin as narrow copies of the blocks they stand beside.

exBERT's extension begins at random (Tai et al. 2020, section 3.1), and takes half of every block
from the first update on: with little text, the teacher never gets back to what its BERT could do.
A copy answers nearly as the original block does, so that the mix of both is nearly the original
whatever the gate says, and learning starts from there. No paper of ours has it; it is made of

    queries, keys    the best product of so many dimensions a head, for the positions of real text:
                     singular vectors of q k', keys centred over each row, since softmax does not
                     see what all keys of a query have in common
    values, output   likewise of v W_o
    feed-forward     the units with the largest share in the output on real text
    output layers    by least squares, so that each sum before a norm is that of the original

Weighing by real text and mending the output layer is how blocks are compressed without training
(Frantar and Alistarh 2023, "SparseGPT"; Wang et al. 2024, "SVD-LLM").
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from edad_jax.models.attention import attention_weights, raw_scores, weigh_values
from edad_jax.models.bert import activate, layer_norm
from edad_jax.models.config import BertConfig, ExBertConfig, ExtensionConfig
from edad_jax.models.documents import is_packed, real_pairs, real_pieces
from edad_jax.models.exbert import ExBert
from edad_jax.models.product import add_bias
from edad_jax.models.relative_position import bias_of
from edad_jax.types import MaskedBatch

# Of the mean square of the inputs of a least-squares fit: how much the original's weights count.
_RIDGE = 0.01


def check_sizes(config: ExBertConfig) -> None:
    """Raises ValueError where the extension blocks cannot be copies of the original's."""
    base, added = config.base, config.extension
    if added is None:
        return
    for name in ("hidden_size", "intermediate_size"):
        if getattr(added, name) > getattr(base, name):
            raise ValueError(
                f"extension.{name}={getattr(added, name)} is more than the original's "
                f"{getattr(base, name)}: a copy of its block needs as many or fewer"
            )
    if added.num_attention_heads != base.num_attention_heads:
        raise ValueError(
            f"extension.num_attention_heads={added.num_attention_heads} and the original has "
            f"{base.num_attention_heads}: a copy of its block needs the same"
        )


def copy_blocks(model: ExBert, params: dict, batch: MaskedBatch) -> dict:
    """Returns params whose extension blocks are narrow copies of the base's; gates stay.

    Args:
      model: a net with an extension, or without, which stays as it is.
      params: its parameters.
      batch: some thousand pieces of text; more make the copy better on other text.

    Raises:
      ValueError: more or other heads, or more units, than the original has.
    """
    config = model.config
    check_sizes(config)
    if config.extension is None:
        return params
    plain = ExBert(dataclasses.replace(config, extension=None), jnp.float32)
    with jax.default_matmul_precision("highest"):
        output = jax.jit(plain.apply, static_argnames=("taps", "method"))(
            {"params": params},
            batch.ids_bt,
            batch.segments_bt,
            batch.seen_bt,
            taps=tuple(range(config.base.num_hidden_layers)),
            method="encode",
        )
        bias_hts = None
        if config.base.relative_attention_num_buckets:
            bias_hts = bias_of(params["base"]["relative"]["embedding"], batch.ids_bt.shape[1])
        inputs = (output.embedding_btd, *output.hidden_btd[:-1])
        extension = dict(params["extension"])
        for layer, hidden_btd in enumerate(inputs):
            extension[f"layers_{layer}"] = _copy_block(
                params["base"][f"layers_{layer}"],
                hidden_btd,
                jnp.asarray(batch.seen_bt),
                bias_hts,
                config.base,
                config.extension,
            )
    return params | {"extension": extension}


def _copy_block(
    block: Mapping,
    hidden_btd: jax.Array,
    mask_bt: jax.Array,
    bias_hts: jax.Array | None,
    base: BertConfig,
    sizes: ExtensionConfig,
) -> dict:
    """Returns the parameters of the narrow block, given what the block reads."""
    real = np.asarray(real_pieces(mask_bt))
    heads = base.num_attention_heads
    attention = block["attention"]
    query_bthk, key_bshk, value_bshk = (
        _project(hidden_btd, attention[name], heads) for name in ("query", "key", "value")
    )
    context_btd = _attend(query_bthk, key_bshk, value_bshk, mask_bt, bias_hts)
    attended_btd = _linear(context_btd, attention["output"])

    centred_bshk = key_bshk - _mean_keys(key_bshk, mask_bt)
    width = sizes.hidden_size // heads
    query_map, key_map = _narrow_scores(
        np.asarray(query_bthk)[real], np.asarray(centred_bshk)[real], width
    )
    value_map, output_kernel = _narrow_values(
        np.asarray(value_bshk)[real], np.asarray(attention["output"]["kernel"]), width
    )
    narrow = {
        "query": _mapped(attention["query"], query_map),
        "key": _mapped(attention["key"], key_map),
        "value": _mapped(attention["value"], value_map),
    }
    narrow_btd = _attend(
        *(_project(hidden_btd, narrow[name], heads) for name in ("query", "key", "value")),
        mask_bt,
        bias_hts,
    )
    narrow["output"] = _fit(
        np.asarray(narrow_btd)[real], np.asarray(attended_btd)[real], output_kernel
    )

    def norm(summed_btd):
        params = {"params": block["attention_norm"]}
        return layer_norm(base, jnp.float32).apply(params, summed_btd)

    middle_btd = norm(hidden_btd + attended_btd)
    narrow_middle_btd = norm(hidden_btd + _linear(narrow_btd, narrow["output"]))
    inner_btf = activate(_linear(middle_btd, block["intermediate"]), base)
    summed_btd = middle_btd + _linear(inner_btf, block["output"])
    units = _largest_units(
        np.asarray(inner_btf)[real], np.asarray(block["output"]["kernel"]), sizes.intermediate_size
    )
    intermediate = {
        "kernel": np.asarray(block["intermediate"]["kernel"])[:, units],
        "bias": np.asarray(block["intermediate"]["bias"])[units],
    }
    narrow_inner_btf = activate(_linear(narrow_middle_btd, intermediate), base)
    output = _fit(
        np.asarray(narrow_inner_btf)[real],
        np.asarray(summed_btd - narrow_middle_btd)[real],
        np.asarray(block["output"]["kernel"])[units],
    )
    return {
        "attention": narrow,
        "attention_norm": jax.tree.map(np.array, dict(block["attention_norm"])),
        "intermediate": intermediate,
        "output": output,
        "output_norm": jax.tree.map(np.array, dict(block["output_norm"])),
    }


def _narrow_scores(query_nhk, key_nhk, width):
    """Returns maps [h, k, width] of queries and keys whose products are nearest to the old ones.

    The best product of that rank in the mean square over all pairs of positions. A score is q k /
    sqrt(k), so the map of the queries makes up for the narrower head.
    """
    scale = np.sqrt(width / query_nhk.shape[2])
    query_maps, key_maps = [], []
    for query_nk, key_nk in zip(*(np.moveaxis(x, 1, 0) for x in (query_nhk, key_nhk)), strict=True):
        query_root, key_root = _root(query_nk), _root(key_nk)
        left, sizes, right = np.linalg.svd(query_root @ key_root.T)
        roots = np.sqrt(sizes[:width])
        query_maps.append(np.linalg.solve(query_root, left[:, :width] * roots) * scale)
        key_maps.append(np.linalg.solve(key_root, right[:width].T * roots))
    return np.stack(query_maps), np.stack(key_maps)


def _narrow_values(value_nhk, kernel_dd, width):
    """Returns maps [h, k, width] of values, and the kernel [h * width, d] that reads them."""
    heads, old_width = value_nhk.shape[1:]
    kernel_hkd = kernel_dd.astype(np.float64).reshape(heads, old_width, -1)
    maps, kernels = [], []
    for value_nk, kernel_kd in zip(np.moveaxis(value_nhk, 1, 0), kernel_hkd, strict=True):
        root = _root(value_nk - value_nk.mean(axis=0))
        left, sizes, right = np.linalg.svd(root @ kernel_kd, full_matrices=False)
        maps.append(np.linalg.solve(root, left[:, :width]))
        kernels.append(sizes[:width, None] * right[:width])
    return np.stack(maps), np.concatenate(kernels)


def _root(vectors_nk):
    """Returns R [k, k] with R'R = the mean of vv' over the vectors; never singular."""
    vectors_nk = vectors_nk.astype(np.float64)
    moment = vectors_nk.T @ vectors_nk / len(vectors_nk)
    moment += 1e-6 * max(np.trace(moment) / len(moment), 1e-30) * np.eye(len(moment))
    return np.linalg.cholesky(moment).T


def _mapped(linear, map_hkw):
    """Returns a linear layer whose heads go through a map each."""
    heads, old_width, _ = map_hkw.shape
    kernel_dhk = np.asarray(linear["kernel"], np.float64).reshape(-1, heads, old_width)
    bias_hk = np.asarray(linear["bias"], np.float64).reshape(heads, old_width)
    kernel_dhw = np.einsum("dhk,hkw->dhw", kernel_dhk, map_hkw)
    bias_hw = np.einsum("hk,hkw->hw", bias_hk, map_hkw)
    return {
        "kernel": kernel_dhw.reshape(len(kernel_dhw), -1).astype(np.float32),
        "bias": bias_hw.reshape(-1).astype(np.float32),
    }


def _largest_units(inner_nf, kernel_fd, count):
    """Returns the units whose part of the output is largest in the mean square, in order."""
    spread_f = inner_nf.var(axis=0) * np.square(kernel_fd).sum(axis=1)
    return np.sort(np.argsort(-spread_f, kind="stable")[:count])


def _fit(inputs_nf, outputs_nd, kernel_fd):
    """Returns the linear layer nearest to `outputs` in the mean square; its kernel, to one given.

    Ridge regression of what the given kernel leaves, all about the means.
    """
    inputs_nf, outputs_nd = inputs_nf.astype(np.float64), outputs_nd.astype(np.float64)
    input_f, output_d = inputs_nf.mean(axis=0), outputs_nd.mean(axis=0)
    inputs_nf = inputs_nf - input_f
    left_nd = outputs_nd - output_d - inputs_nf @ kernel_fd
    moment_ff = inputs_nf.T @ inputs_nf
    moment_ff += max(_RIDGE * np.trace(moment_ff) / len(moment_ff), 1e-30) * np.eye(len(moment_ff))
    kernel_fd = kernel_fd + np.linalg.solve(moment_ff, inputs_nf.T @ left_nd)
    return {
        "kernel": kernel_fd.astype(np.float32),
        "bias": (output_d - input_f @ kernel_fd).astype(np.float32),
    }


def _project(hidden_btd, linear, heads):
    batch, length, _ = hidden_btd.shape
    return _linear(hidden_btd, linear).reshape(batch, length, heads, -1)


def _mean_keys(key_bshk, mask_bt):
    """Returns the mean over the real keys of a row or, in packed rows, of the key's document."""
    if is_packed(mask_bt):
        pairs_bts = real_pairs(mask_bt)[:, 0].astype(jnp.float32)
        counts_bt1 = jnp.maximum(pairs_bts.sum(axis=-1, keepdims=True), 1)
        return jnp.einsum("bts,bshk->bthk", pairs_bts / counts_bt1, key_bshk)
    count_b111 = jnp.maximum(mask_bt.sum(axis=1), 1)[:, None, None, None]
    real_key_bshk = jnp.where(mask_bt[..., None, None], key_bshk, 0)
    return real_key_bshk.sum(axis=1, keepdims=True) / count_b111


def _attend(query_bthk, key_bshk, value_bshk, mask_bt, bias_hts):
    """Returns what attention gathers, heads side by side."""
    scores_bhts = raw_scores(query_bthk, key_bshk)
    if bias_hts is not None:
        scores_bhts += bias_hts[None]
    weights_bhts = attention_weights(scores_bhts, mask_bt)
    context_bthk = weigh_values(weights_bhts, value_bshk)
    return context_bthk.reshape(*context_bthk.shape[:2], -1)


def _linear(inputs, linear):
    return add_bias(inputs @ jnp.asarray(linear["kernel"]), jnp.asarray(linear["bias"]))
