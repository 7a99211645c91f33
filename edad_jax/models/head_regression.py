# SPDX-License-Identifier: Apache-2.0
"""An MLM head in closed form: what a net's features say of masked pieces, before any update.

A head that begins at random says nothing, and while it learns, its gradients pull the features
below it about (Kumar et al. 2022, "Fine-tuning can distort pretrained features"). Here it begins as
the best linear one instead. For features h of a masked piece and the table's row e_v of piece v,

    log p(v | h) / p(v)  =  (e_v - e)' W (h - m)      e: mean row, by frequency; m: mean features
    W  =  (S_e + a)^-1  C  (S_h + b)^-1               C: covariance of the masked pieces' rows and h

is the least-squares fit of that ratio (Kanamori et al. 2009, "A least-squares approach to direct
importance estimation", for a product of two sides; ridges a and b), times a temperature. b and the
temperature are those that serve text best which the fit has not seen. No paper of ours has it.

The head is linear, gelu, norm, tied table. To pass the linear map through nearly unchanged, the
linear layer's bias lifts all numbers to where gelu is all but the identity, half of them higher
than the rest: the norm then divides all rows by nearly the same, and its own bias takes the pattern
away.
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from edad_jax.models.config import BertConfig
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import gather_positions
from edad_jax.types import MaskedBatch

LOG = logging.getLogger(__name__)
_LEAST = 256  # masked pieces, below which nothing can be fitted
_UNSEEN = 1_024  # masked pieces at most that ridge and temperature are chosen on
_WORTH = 0.99  # of the loss of frequencies alone; nearer to it, it may be chance
_ROWS_RIDGE = 0.3  # of the table's mean variance; 0.1 and 1 serve hardly worse
_RIDGES = (0.1, 0.3, 1.0)  # of that of the features, which depends on how much text there is
_TEMPERATURES = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)  # deviation of what the table is multiplied with
# In deviations of the linear map's numbers: half of them lie around 13, half around 3. gelu(3) is
# 2.996, gelu(2) 1.954.
_LIFT, _SPREAD = 8.0, 5.0


class _Samples(NamedTuple):
    """Masked pieces: what the net makes of them, and what they are."""

    hidden_nd: np.ndarray
    pieces_n: np.ndarray


def regress_head(
    name: str, model: ExBert, params: dict, batches: Iterable[MaskedBatch], log_shares_v: np.ndarray
) -> dict:
    """Returns params whose MLM head begins as the linear one that fits its encoder best.

    Where no map serves unseen text better than the pieces' frequencies, the head keeps its random
    transform, and has the frequencies alone.

    Args:
      name: of the net, for the log.
      model: whose MLM head has a transform with biases.
      params: of the net; only "mlm" is made anew.
      batches: masked text of one shape; some 20,000 masked pieces serve 384 dimensions.
      log_shares_v: float32 [v]; log of each piece's share of the text, up to a constant.

    Raises:
      ValueError: a head without biases (ModernBERT), which cannot take the map.
    """
    check_head(model.config.base)
    tables = [params["base"]["embeddings"]["word"]["embedding"]]
    if "word" in params.get("extension", {}):
        tables.append(params["extension"]["word"]["embedding"])
    table_ve = np.concatenate([np.asarray(table, np.float32) for table in tables])
    frequencies = params | {"mlm": params["mlm"] | {"bias": log_shares_v}}
    samples = _encode(model, params, batches)
    unseen = min(_UNSEEN, len(samples.pieces_n) // 8)
    if len(samples.pieces_n) < _LEAST:
        LOG.warning("%s: %d masked pieces are too few for a head", name, len(samples.pieces_n))
        return frequencies
    fitted, held = (
        _Samples(*(x[part] for x in samples)) for part in (slice(unseen, None), slice(unseen))
    )
    before = _loss(np.zeros((1, 1), np.float32), log_shares_v, held.pieces_n)
    trials = {
        ridge: _measure(_fit(fitted, table_ve, log_shares_v, ridge), held, table_ve, log_shares_v)
        for ridge in _RIDGES
    }
    ridge, (loss, temperature) = min(trials.items(), key=lambda item: item[1])
    LOG.info(
        "%s: an MLM head by regression on %s masked pieces; on %s others its loss is %.2f, that of "
        "frequencies alone %.2f",
        name,
        f"{len(fitted.pieces_n):,}",
        f"{unseen:,}",
        loss,
        before,
    )
    if loss > _WORTH * before:
        return frequencies
    map_de, mean_d = _fit(samples, table_ve, log_shares_v, ridge)
    head = _write(map_de, mean_d, temperature, samples.hidden_nd)
    return params | {"mlm": {**head, "bias": log_shares_v}}


def check_head(base: BertConfig) -> None:
    """Raises ValueError where the MLM head of such a net cannot begin by regression."""
    if not base.has_biases:
        raise ValueError(
            "config.mlm_head_init='regression' needs an MLM head with biases, and that of a "
            f"{base.family} has none; set --config.mlm_head_init=frequencies"
        )


def _encode(model, params, batches):
    """Returns the last hidden states at the masked places, and the pieces that stood there."""

    @jax.jit
    def encode(params, batch):
        output = model.apply(
            {"params": params}, batch.ids_bt, batch.segments_bt, batch.seen_bt, method="encode"
        )
        return gather_positions(output.last_hidden_btd, batch.masked_positions_bm)

    hidden, pieces = [], []
    for batch in batches:
        used_bm = np.asarray(batch.masked_weights_bm) > 0
        hidden.append(np.asarray(encode(params, batch), np.float32)[used_bm])
        pieces.append(np.asarray(batch.masked_labels_bm)[used_bm])
    return _Samples(np.concatenate(hidden), np.concatenate(pieces))


def _fit(samples, table_ve, log_shares_v, ridge):
    """Returns (map [d, e] with numbers of deviation 1, mean [d]) of the regression."""
    shares_v = np.exp(log_shares_v - log_shares_v.max())
    shares_v /= shares_v.sum()
    rows_ve = table_ve - shares_v @ table_ve
    mean_d = samples.hidden_nd.mean(axis=0)
    hidden_nd = samples.hidden_nd - mean_d
    rows_cov_ee = (rows_ve * shares_v[:, None]).T @ rows_ve
    hidden_cov_dd = hidden_nd.T @ hidden_nd / len(hidden_nd)
    both_de = hidden_nd.T @ rows_ve[samples.pieces_n] / len(hidden_nd)
    half_de = np.linalg.solve(_ridged(hidden_cov_dd, ridge), both_de)
    map_de = np.linalg.solve(_ridged(rows_cov_ee, _ROWS_RIDGE), half_de.T).T
    return (map_de / (hidden_nd @ map_de).std()).astype(np.float32), mean_d


def _ridged(covariance, ridge):
    size = len(covariance)
    return covariance + ridge * np.trace(covariance) / size * np.eye(size)


def _measure(fit, held, table_ve, log_shares_v):
    """Returns (loss in nats, temperature): the best of them for unseen pieces."""
    map_de, mean_d = fit
    scores_nv = (held.hidden_nd - mean_d) @ map_de @ table_ve.T
    return min(
        (_loss(temperature * scores_nv, log_shares_v, held.pieces_n), temperature)
        for temperature in _TEMPERATURES
    )


def _loss(scores_nv, log_shares_v, pieces_n):
    logits_nv = scores_nv + log_shares_v
    most_n1 = logits_nv.max(axis=-1, keepdims=True)
    total_n = most_n1[:, 0] + np.log(np.exp(logits_nv - most_n1).sum(axis=-1))
    own_n = np.broadcast_to(logits_nv, (len(pieces_n), logits_nv.shape[1]))
    return float(np.mean(total_n - own_n[np.arange(len(pieces_n)), pieces_n]))


def _write(map_de, mean_d, temperature, hidden_nd):
    """Returns transform and norm of a head that multiplies the table with temperature * map."""
    width = map_de.shape[1]
    pattern_e = np.where(np.arange(width) % 2, _SPREAD, -_SPREAD).astype(np.float32)
    lifted_ne = (hidden_nd[:_UNSEEN] - mean_d) @ map_de + pattern_e
    deviation = np.float32(lifted_ne.std(axis=1).mean())
    scale_e = np.full(width, temperature * deviation, np.float32)
    return {
        "transform": {"kernel": map_de, "bias": _LIFT + pattern_e - mean_d @ map_de},
        "norm": {
            "scale": scale_e,
            "bias": -scale_e * (pattern_e - pattern_e.mean()) / deviation,
        },
    }
