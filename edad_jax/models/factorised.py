# SPDX-License-Identifier: Apache-2.0
"""A factorised net (ALBERT; Lan et al. 2020, section 3.1) as one with tables of the full width.

Such a net has word vectors of E numbers and a map to its width D; its MLM head goes back to E. A
student of D numbers per word (a DistilBERT) has neither map:

    tables   vector times map, so that word + position + segment gives what the map gave
    head     of the net's own head the best linear map that ends in D numbers, before the tables

No text is needed. What gelu bends, training has to bring.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr  # scipy.stats takes a second to import

Params = Mapping[str, Any]
_LINEAR_FROM = 3.0  # gelu(x) is x, within 0.01, from here on


def full_tables(params: Params) -> dict[str, Any]:
    """Returns the parameters with tables and head of the model's width in place of narrow ones.

    A factorised net maps norm(word + position + segment) to its width. Centring and the norm's
    scale are linear, so they go into each table, and the map with them: the sum of the products is
    what the map gives, times the deviation of the narrow sum, plus a constant, which goes into the
    positions. The student's own norm divides by what deviation there is; its scale is that of the
    teacher's output.

    Args:
      params: of a net; "base" with embeddings and the blocks layers_0, layers_1, ... that it uses,
        and maybe "extension" and "mlm". ALBERT's own blocks, which are one and the same, too.
    """
    tables = params["base"]["embeddings"]
    kernel_ed, bias_d = tables["projection"]["kernel"], tables["projection"]["bias"]
    scale_e, shift_e = tables["norm"]["scale"], tables["norm"]["bias"]

    def product(table_ve):
        centred_ve = table_ve - table_ve.mean(axis=1, keepdims=True)
        return (centred_ve * scale_e) @ kernel_ed

    names = [name for name in ("word", "position", "token_type") if name in tables]
    narrow = [tables[name]["embedding"] for name in names]
    deviation = np.sqrt(sum(table.var(axis=1).mean() for table in narrow))
    full = {name: {"embedding": product(tables[name]["embedding"])} for name in names}
    full["position"]["embedding"] += deviation * (shift_e @ kernel_ed + bias_d)
    size = np.sqrt(sum(full[name]["embedding"].var(axis=1).mean() for name in names)) / deviation
    width = len(bias_d)
    full["norm"] = {
        "scale": np.full(width, size, np.float32),
        "bias": np.zeros(width, np.float32),
    }
    result = params | {"base": params["base"] | {"embeddings": full}}
    if "word" in params.get("extension", {}):
        word = {"embedding": product(params["extension"]["word"]["embedding"])}
        result["extension"] = params["extension"] | {"word": word}
    if "transform" in params.get("mlm", {}):
        back_ed = scale_e[:, None] * kernel_ed
        result["mlm"] = params["mlm"] | _full_head(params["mlm"], _last_norm(params), back_ed)
    return result


def _last_norm(params: Params) -> Params:
    """Returns the norm that the head's input comes out of."""
    base = params["base"]
    last = max(int(name.removeprefix("layers_")) for name in base if name.startswith("layers_"))
    return base[f"layers_{last}"]["output_norm"]


def _full_head(head: Params, input_norm: Params, back_ed: np.ndarray) -> dict[str, Any]:
    """Returns transform and norm of the full width, whose logits are near those of `head`.

    A word's full vector is its narrow one through back_ed (but for centring), so the head's output
    must be narrow outputs times the pseudo-inverse of back_ed. In between stand one linear layer,
    one gelu for each number and a norm, and no second linear layer: so the narrow gelu is taken
    for the line that fits it best, and the full one is fed where it is linear. What gelu bends is
    lost, and so is the size of a single output, which the norms set.

    Args:
      head: transform (kernel [d, e]) and norm, narrow.
      input_norm: the norm in front of the head. What comes out of it is taken as independent
        numbers, normal with deviation |scale_d| around bias_d.
      back_ed: from narrow to full word vectors, but for the centring.
    """
    kernel_de = head["transform"]["kernel"]
    mean_d, scale_d = input_norm["bias"], input_norm["scale"]
    mean_e = mean_d @ kernel_de + head["transform"]["bias"]
    variance_e = np.square(scale_d) @ np.square(kernel_de)
    slope_e, value_e = fit_gelu(mean_e, variance_e)
    # The narrow norm: centred, over the deviation among units that is to be expected.
    deviation = np.sqrt(value_e.var() + (np.square(slope_e) * variance_e).mean())
    gain_e = head["norm"]["scale"] / deviation
    inverse_ed = np.linalg.pinv(back_ed).T

    def onward(x_e):
        centred_e = x_e - x_e.mean(axis=-1, keepdims=True)
        return (centred_e * gain_e) @ inverse_ed

    full_dd = onward(kernel_de * slope_e)
    centre_d = onward(value_e) + head["norm"]["bias"] @ inverse_ed  # of the output, on average
    spread_d = np.sqrt(np.square(scale_d) @ np.square(full_dd))
    # Far enough for gelu to be linear wherever the output may be; the full norm takes it off again.
    offset = _LINEAR_FROM + np.abs(centre_d).max() + 4 * spread_d.max()
    size = np.sqrt(centre_d.var() + np.square(spread_d).mean())  # that the full norm takes off
    width = len(centre_d)
    return {
        "transform": {"kernel": full_dd, "bias": centre_d - mean_d @ full_dd + offset},
        "norm": {
            "scale": np.full(width, size, np.float32),
            "bias": np.zeros(width, np.float32),
        },
    }


def fit_gelu(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns slope and mean of gelu(x) for normal x: the line with the least squared error.

    The slope is E gelu'(x) (Stein's lemma). gelu(x) = x * P(z < x) with z standard normal, whence
    both follow in closed form.
    """
    root = np.sqrt(1 + variance)
    share = ndtr(mean / root)
    density = np.exp(-((mean / root) ** 2) / 2) / np.sqrt(2 * np.pi)
    slope = share + density * mean / root**3
    return slope, mean * share + density * variance / root
