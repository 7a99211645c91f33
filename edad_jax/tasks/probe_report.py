# SPDX-License-Identifier: Apache-2.0
"""Probes of several models on several data sets, side by side."""

import statistics
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from edad_jax.report.tables import markdown_table
from edad_jax.tasks.probe import Probe, check_probe, f1_difference, probe


class Probed(NamedTuple):
    """One layer of a model on one data set."""

    model: str
    data: str
    probe: Probe
    seconds: float  # for all layers of the model on this data set


def probe_all(
    config: ConfigDict, models: Sequence[str], data: Sequence[str], layers: Sequence[int]
) -> list[Probed]:
    """Returns the probes of every model on every data set; what they raise as `probe` says."""

    def ask(model, each):
        given = config.copy_and_resolve_references()
        given.task, given.model, given.data = "tagging", model, each
        return given

    # A mistake in the last is told before the first is fitted.
    for model in models[1:]:
        check_probe(ask(model, data[0]), layers)
    for each in data[1:]:
        check_probe(ask(models[0], each), layers)
    found = []
    for each in data:
        for model in models:
            start = time.perf_counter()
            probes = probe(ask(model, each), layers)
            seconds = time.perf_counter() - start
            found += [Probed(model, each, one, seconds) for one in probes]
    return found


def describe(found: Sequence[Probed]) -> str:
    """Returns a table: a line for each model and layer, a column for each data set.

    Beside each score stands its difference from the first model's of that layer.
    """
    titles = _titles(dict.fromkeys(each.data for each in found))
    first = {}
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    scores: dict[tuple[str, int], list[float]] = {}
    for each in found:
        key = (each.model, each.probe.layer)
        base = first.setdefault((each.data, each.probe.layer), each.probe)
        text = f"{100 * each.probe.f1:.2f}"
        if base is not each.probe:
            difference, low, high = (100 * value for value in f1_difference(base, each.probe))
            text += f" ({difference:+.2f}, {low:+.2f} to {high:+.2f})"
        row = rows.setdefault(key, {"model": each.model, "layer": each.probe.layer})
        row[titles[each.data]] = text
        scores.setdefault(key, []).append(100 * each.probe.f1)
    for key, row in rows.items():
        row["average"] = f"{statistics.fmean(scores[key]):.2f}"
    columns = ["model", "layer", *titles.values(), "average"]
    return markdown_table(list(rows.values()), columns)


def _titles(data: Collection[str]) -> dict[str, str]:
    """Returns what the column of each data set is called: its folder's name, if it has its own."""
    names = {each: Path(each).name for each in data}
    counts = Counter(names.values())
    return {each: name if counts[name] == 1 else each for each, name in names.items()}


def summarise(found: Sequence[Probed]) -> list[dict[str, Any]]:
    """Returns the scores, in [0, 1], and the entity counts of the test split, as JSON."""
    return [
        {
            "model": each.model,
            "data": each.data,
            "layer": each.probe.layer,
            "f1": each.probe.f1,
            "validation_f1": each.probe.validation_f1,
            "strength": each.probe.strength,
            "entities": each.probe.counts_n3.sum(axis=0).tolist(),  # found, said, to be found
            "seconds": round(each.seconds, 1),
        }
        for each in found
    ]
