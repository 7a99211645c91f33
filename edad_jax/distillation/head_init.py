# SPDX-License-Identifier: Apache-2.0
"""How an MLM head begins that a checkpoint lacks, or that a student cannot take over: three ways.

random        as drawn
frequencies   its bias says how often each piece comes
regression    that, and the linear map of the net's features that fits masked text best
              (`models.head_regression`)
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from edad_jax.data.piece_counts import log_frequencies
from edad_jax.models.exbert import ExBert
from edad_jax.models.head_regression import regress_head
from edad_jax.types import MaskedBatch, Vocabulary

MLM_HEADS = ("random", "frequencies", "regression")


def begin_head(
    config: ConfigDict,
    vocabulary: Vocabulary,
    name: str,
    model: ExBert,
    params: dict,
    sample: Sequence[MaskedBatch],
) -> dict:
    """Returns params with the MLM head that config.mlm_head_init names.

    Args:
      config: of the run.
      vocabulary: of its rows; without counts only shapes are asked for.
      name: of the net, for the log.
      model: the net.
      params: all of its parameters.
      sample: masked text that a regression is fitted to; none where only shapes are asked for.

    Raises:
      ValueError: a head that cannot begin by regression.
    """
    params = with_frequencies(config, vocabulary, params)
    if sample and config.mlm_head_init == "regression":
        return regress_head(name, model, params, sample, params["mlm"]["bias"])
    return params


def with_frequencies(config: ConfigDict, vocabulary: Vocabulary, params: dict) -> dict:
    """Returns params whose MLM bias says how often each piece comes, but for random heads.

    Left at zeros, a bias gets there by a learning rate's width an update, and till then the rest of
    the head stands in for it.
    """
    counts = vocabulary.token_counts
    if config.mlm_head_init == "random" or counts is None:
        return params
    bias = log_frequencies(counts, (vocabulary.cls_id, vocabulary.sep_id))
    return params | {"mlm": params["mlm"] | {"bias": bias}}
