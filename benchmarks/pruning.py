# SPDX-License-Identifier: Apache-2.0
"""Smaller models from trained ones, without more training.

Two thirds of a small student are word vectors. The words that a corpus never uses can go; what
remains of the vectors can be stored in eight bits or in fewer numbers (`onnx.build_onnx`); and the
extension's feed-forward units that weigh least can go too.
"""

import dataclasses
import itertools
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from edad_jax.data.tokenizer import load_tokenizer, pieces_in_order, save_tokenizer
from edad_jax.export.formats import Model
from edad_jax.models.narrowing import strongest, unit_weights


def prune_vocabulary(
    model: Model, texts: Iterable[str], folder: Path, *, fewest_uses: int = 1
) -> Model:
    """Returns the model with the pieces that the texts use, and whatever else must stay.

    Special pieces keep their ids. Pieces of one letter stay, so that no word becomes unknown that
    was not: one whose piece is gone is cut into shorter ones.

    Args:
      model: to prune.
      texts: what it is to read.
      folder: where the new tokenizer goes; the returned model has it as its source.
      fewest_uses: how often a piece must be used to stay.

    Raises:
      ValueError: the tokenizer is none of a BERT, or does not fit the model.
    """
    tokenizer = load_tokenizer(model.source, option="--model=DIR")
    pieces = pieces_in_order(tokenizer.backend_tokenizer)
    if len(pieces) != model.config.vocab_size:
        raise ValueError(
            f"{model.source}: got a tokenizer of {len(pieces):,} pieces, expected the model's "
            f"{model.config.vocab_size:,}"
        )
    uses = np.zeros(len(pieces), np.int64)
    composed = (unicodedata.normalize("NFC", text) for text in texts)
    while some := list(itertools.islice(composed, 1_000)):
        for ids in tokenizer(some, add_special_tokens=False)["input_ids"]:
            np.add.at(uses, ids, 1)
    stays = uses >= fewest_uses
    stays[: max(tokenizer.all_special_ids) + 1] = True
    stays |= np.array([len(piece.removeprefix("##")) == 1 for piece in pieces])
    base_size = model.config.base.vocab_size
    kept_base, kept_added = np.flatnonzero(stays[:base_size]), np.flatnonzero(stays[base_size:])
    params = jax.tree.map(np.asarray, model.params)
    word = params["base"]["embeddings"]["word"]
    word["embedding"] = word["embedding"][kept_base]
    if len(kept_added):
        word = params["extension"]["word"]
        word["embedding"] = word["embedding"][kept_added]
    elif model.config.extension_vocab_size:
        del params["extension"]["word"]
    config = dataclasses.replace(
        model.config,
        base=dataclasses.replace(model.config.base, vocab_size=len(kept_base)),
        extension_vocab_size=len(kept_added),
    )
    save_tokenizer(tokenizer, [pieces[row] for row in np.flatnonzero(stays)], folder)
    return Model(str(folder), config, params, model.task)


def prune_extension(model: Model, share: float) -> Model:
    """Returns the model less this share of the feed-forward units of each extension block.

    Those go whose incoming and outgoing weights are the smallest, by the product of their norms:
    whole units, since single weights that are zero save neither time nor space here.

    Raises:
      ValueError: the model has no extension, or the share is not between 0 and 1.
    """
    if not model.config.extension:
        raise ValueError(f"{model.source} has no extension blocks, so none of them can be pruned")
    if not 0 <= share < 1:
        raise ValueError(f"got a share of {share}, expected one from 0 to less than 1")
    units = model.config.extension.intermediate_size
    left = max(1, units - round(share * units))
    params = jax.tree.map(np.asarray, model.params)
    for layer in range(model.config.base.num_hidden_layers):
        block = params["extension"][f"layers_{layer}"]
        inner, output = block["intermediate"], block["output"]
        kept = strongest(unit_weights(inner["kernel"], output["kernel"]), left)
        inner["kernel"], inner["bias"] = inner["kernel"][:, kept], inner["bias"][kept]
        output["kernel"] = output["kernel"][kept]
    extension = dataclasses.replace(model.config.extension, intermediate_size=left)
    config = dataclasses.replace(model.config, extension=extension)
    return Model(model.source, config, params, model.task)
