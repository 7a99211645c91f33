# SPDX-License-Identifier: Apache-2.0
"""What an encoder knows of a tagging task as it is: a linear tagger on its frozen features.

Fine-tuning moves the whole encoder, and its scores swing with the seed by more than most changes of
pretraining are worth. Here nothing of the encoder moves (Alain and Bengio 2016, "linear classifier
probes"; for word vectors of BERT: Liu et al. 2019). The tagger is a logistic regression: its
optimum is one point, so that no seed has a say, and what is left is the choice of test sentences.
"""

import logging
import warnings
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.models.config import ExBertConfig
from edad_jax.models.exbert import ExBert
from edad_jax.models.precision import resolve_precision
from edad_jax.tasks import scores
from edad_jax.tasks.rows import TaskRows, ordered_batches
from edad_jax.tasks.setup import (
    Prepared,
    check_length,
    load_encoder,
    prepare_examples,
    read_examples,
)

LOG = logging.getLogger(__name__)
_BATCH_SIZE = 64  # rows that the encoder reads at once
_MOST_ITERATIONS = 500  # of L-BFGS; some 100 to 300 are needed
# What a penalty of 1 per weight is divided by, in sklearn's way of counting: the strength is chosen
# on the validation split. Features are of unit variance.
_STRENGTHS = (0.01, 0.1)


class Probe(NamedTuple):
    """What one layer of an encoder comes to on one data set."""

    layer: int  # 0: the embeddings; -1 and below count from the last
    f1: float  # of entities, on the test split
    strength: float  # that did best on the validation split
    validation_f1: float
    counts_n3: np.ndarray  # int64 [sentences, 3]: entities found, said and to be found


def probe(config: ConfigDict, layers: Sequence[int] = (-1,)) -> list[Probe]:
    """Returns what each layer of config.model comes to on config.data, a tagging data set.

    Args:
      config: of fine-tuning (configs/ner.py); model, data, readers' options, max_train,
        max_validation, max_test, max_length and dtype are read.
      layers: 1 is the first block's output, 0 the embeddings', -1 the last block's.

    Raises:
      ValueError: a model or data that cannot be read, no test split, a layer that is not there, or
        no tagger that comes to its optimum.
    """
    tokenizer = load_tokenizer(config.model, option="--model=/a/local/folder")
    sizes, params = load_encoder(config, len(tokenizer))
    chosen = choose_layers(config, sizes, layers)
    prepared = prepare_examples(config, tokenizer)
    check_splits(config.data, prepared.examples)
    net = ExBert(sizes, *resolve_precision(config.dtype))
    features = {
        split: word_features(net, params, rows, chosen, max_length=config.max_length)
        for split, rows in prepared.rows.items()
    }
    return [
        _probe_layer(prepared, {split: each[number] for split, each in features.items()}, layer)
        for number, layer in enumerate(layers)
    ]


def check_probe(config: ConfigDict, layers: Sequence[int]) -> None:
    """Looks at a model and data, and fits nothing.

    Raises:
      ValueError: what `probe` would raise of config.model's files and config.data's labels.
    """
    tokenizer = load_tokenizer(config.model, option="--model=/a/local/folder")
    sizes, _ = load_encoder(config, len(tokenizer))
    choose_layers(config, sizes, layers)
    check_splits(config.data, read_examples(config)[1])


def choose_layers(config: ConfigDict, sizes: ExBertConfig, layers: Sequence[int]) -> list[int]:
    """Returns layers as counted from the embeddings, 0; raises ValueError for one not there."""
    check_length(config, sizes)
    depth = sizes.base.num_hidden_layers
    chosen = [layer if layer >= 0 else depth + 1 + layer for layer in layers]
    if wrong := [layer for layer, at in zip(layers, chosen, strict=True) if not 0 <= at <= depth]:
        raise ValueError(f"layers={wrong}: {config.model} has layers 0 to {depth}")
    return chosen


def check_splits(data: str, splits: Collection[str]) -> None:
    """Raises ValueError where a split that a probe needs is not there."""
    if missing := {"train", "validation", "test"} - set(splits):
        raise ValueError(f"{data}: got no {' and no '.join(sorted(missing))} split to probe")


def word_features(
    net: ExBert, params: dict, rows: TaskRows, layers: Sequence[int], *, max_length: int
) -> list[np.ndarray]:
    """Returns for each layer the vectors of all words' first pieces, float32 [words, d].

    In the order of the rows, and within them of the words.
    """
    taps = tuple(layer - 1 for layer in layers if layer)

    @jax.jit
    def encode(params, batch):
        output = net.apply(
            {"params": params},
            batch.ids_bt,
            jnp.zeros_like(batch.ids_bt),
            batch.mask_bt,
            taps=taps,
            method="encode",
        )
        of_layer = dict(zip(taps, output.hidden_btd, strict=True)) | {-1: output.embedding_btd}
        return [of_layer[layer - 1].astype(np.float32) for layer in layers]

    params = jax.device_put(params)
    found: list[list[np.ndarray]] = [[np.zeros(0)] * len(rows) for _ in layers]
    for numbers, batch in ordered_batches(rows, batch_size=_BATCH_SIZE, max_length=max_length):
        for of_rows, hidden_btd in zip(found, encode(params, batch), strict=True):
            hidden_btd = np.asarray(hidden_btd)
            for place, number in enumerate(numbers):
                of_rows[number] = hidden_btd[place, np.flatnonzero(rows.words[number] >= 0)]
    return [np.concatenate(of_rows) for of_rows in found]


def f1_difference(first: Probe, second: Probe, seed: int = 0) -> tuple[float, float, float]:
    """Returns (difference, low, high): second's F1 less first's, and its 95% interval.

    A paired bootstrap over test sentences (Efron and Tibshirani 1993, chapter 16; for NLP:
    Berg-Kirkpatrick et al. 2012): how far another choice of sentences would have moved it. That of
    pretraining with another seed is not in it.
    """
    drawn = [scores.resampled_f1(each.counts_n3, seed) for each in (first, second)]
    low, high = np.quantile(drawn[1] - drawn[0], (0.025, 0.975))
    return second.f1 - first.f1, float(low), float(high)


def _probe_layer(prepared: Prepared, features: dict[str, np.ndarray], layer: int) -> Probe:
    rows = prepared.rows
    labels = np.concatenate(
        [
            given[words >= 0]
            for given, words in zip(rows["train"].labels, rows["train"].words, strict=True)
        ]
    )
    mean, deviation = features["train"].mean(axis=0), features["train"].std(axis=0) + 1e-6
    scaled = {split: (each - mean) / deviation for split, each in features.items()}
    best: tuple[float, Any] = (-1.0, None)
    tagger = LogisticRegression(max_iter=_MOST_ITERATIONS, tol=1e-4, warm_start=True)
    for strength in _STRENGTHS:  # from the strongest penalty on, each from the one before
        tagger.set_params(C=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                tagger.fit(scaled["train"], labels)
            except ConvergenceWarning:
                LOG.warning(
                    "layer %d, penalty 1/%g: not at its optimum after %d steps; left out.",
                    *(layer, strength, _MOST_ITERATIONS),
                )
                break
        predicted = _decode(prepared, "validation", tagger, scaled["validation"])
        f1 = prepared.task.quick_score(prepared.examples["validation"], predicted)
        if f1 > best[0]:
            best = f1, (strength, _decode(prepared, "test", tagger, scaled["test"]))
    if best[1] is None:
        raise ValueError(
            f"layer {layer}: no tagger came to its optimum in {_MOST_ITERATIONS} steps, expected "
            f"one of penalty 1/{_STRENGTHS[0]:g} at least; probe another layer, or fit to other "
            "sentences (--max_train)"
        )
    validation_f1, (strength, predicted) = best
    gold = [sentence.tags for sentence in prepared.examples["test"]]
    counts_n3 = scores.entity_counts(gold, predicted)
    f1 = scores.entity_scores(gold, predicted)["f1"]
    return Probe(layer, f1, strength, validation_f1, counts_n3)


def _decode(
    prepared: Prepared, split: str, tagger: LogisticRegression, features: np.ndarray
) -> list[list[str]]:
    """Returns the likeliest tag of every word of a split."""
    rows = prepared.rows[split]
    scores_nc = np.zeros((len(features), len(prepared.labels)), np.float32)
    scores_nc[:, tagger.classes_] = tagger.predict_proba(features)
    logits, start = [], 0
    for words in rows.words:
        of_row = np.zeros((len(words), len(prepared.labels)), np.float32)
        here = np.flatnonzero(words >= 0)
        of_row[here] = scores_nc[start : start + len(here)]
        start += len(here)
        logits.append(of_row)
    return prepared.task.decode(prepared.examples[split], rows, logits, prepared.labels)
