# SPDX-License-Identifier: Apache-2.0
"""What stands in for nets in tests of the runtime: their answers follow from the words."""

import time

import numpy as np

from edad_jax.runtime.models import Answer, Answers, Prediction, QuestionAnswerer, Score, Scorer
from edad_jax.runtime.readings import Reading, Row
from edad_jax.runtime.session import ExportedModel
from edad_jax.runtime.windows import Window
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


class Told:
    """Stands in for a model that is read by the server: a function says what it finds.

    Args:
      function: of a text or a pair.
      rows: that are read of each text; it has as many pieces.
    """

    batch_size = 64

    def __init__(self, function, rows=1):
        self.function, self.rows = function, rows

    def begin(self, item):
        return _Told(item, self.function, self.rows)

    def read_batch(self, rows):
        pass


class _Told(Reading):
    def __init__(self, text, function, rows):
        row = Row(np.zeros(1, np.int64), 1, Window(0, 0, 1, 0, 1))
        super().__init__([row] * rows, rows)
        self.text, self.function = text, function

    def take(self, row, *values):
        pass

    def result(self):
        return self.function(self.text)


class Counter(Told):
    """Counts letters, and how it was called; "fail" makes it fail where the net is run."""

    def __init__(self, seconds=0.0):
        super().__init__(lambda text: Prediction(f"length {len(text)}", 1.0, {}))
        self.seconds, self.batches = seconds, []

    def read_batch(self, rows):
        if any(reading.text == "fail" for reading, _ in rows):
            raise RuntimeError("a bug of the model")
        self.batches.append(len(rows))
        time.sleep(self.seconds)


class Long(Scorer):
    """A stand-in whose texts have as many rows, of a millisecond each, as they say."""

    batch_size = 1

    def __init__(self):
        self.seen = []

    def begin(self, item):
        return Told(lambda text: Score(0.5), rows=int(item)).begin(item)

    def read_batch(self, rows):
        time.sleep(0.001)
        self.seen += [reading.text for reading, _ in rows]


class EchoAnswerer(QuestionAnswerer):
    """Answers with the question's length and the context's last letters."""

    def __init__(self):
        self.batch_size = 4

    def begin(self, item):
        question, context = item
        answer = Answer(context[-3:], len(context) - 3, len(context), len(question))
        return Told(lambda pair: Answers([answer])).begin(item)

    def read_batch(self, rows):
        pass
