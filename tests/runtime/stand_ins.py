# SPDX-License-Identifier: Apache-2.0
"""What stands in for nets in tests of the runtime: their answers follow from the words."""

import numpy as np

from edad_jax.runtime.session import ExportedModel
from tests.tiny_exports import LABELS
from tests.tiny_text import WORDS

DRUG, GENE = WORDS[5], WORDS[6]  # whole pieces of the tiny vocabulary
SMALL = {"max_length": 12, "overlap": 4, "batch_size": 3}


class NamedPieces:
    """Stands in for a net that knows two words: B-Drug after O, I-Drug after itself; B-Gene."""

    def __init__(self, model: ExportedModel):
        (self.drug,), (self.gene,) = (model.tokenize(word).ids for word in (DRUG, GENE))
        self.shapes = []

    def run(self, names, inputs):
        ids = inputs["input_ids"]
        self.shapes.append(ids.shape)
        before = np.pad(ids, ((0, 0), (1, 0)))[:, :-1]
        number = np.where(ids == self.drug, np.where(before == self.drug, 2, 1), 0)
        number = np.where(ids == self.gene, 3, number)
        return [np.float32(9) * np.eye(len(LABELS), dtype=np.float32)[number]]


class PointsAtGene:
    """Stands in for a net that answers with the longest run of one word."""

    def __init__(self, model: ExportedModel):
        (self.gene,), self.seen = model.tokenize(GENE).ids, []

    def run(self, names, inputs):
        assert names == ["start_logits", "end_logits"]
        ids, segments = inputs["input_ids"], inputs["token_type_ids"]
        self.seen.append((ids, segments))
        is_answer = (ids == self.gene) & (segments == 1)
        before = np.pad(is_answer, ((0, 0), (1, 0)))[:, :-1]
        after = np.pad(is_answer, ((0, 0), (0, 1)))[:, 1:]
        starts, ends = is_answer & ~before, is_answer & ~after
        return [np.float32(9) * starts, np.float32(9) * ends]
