# SPDX-License-Identifier: Apache-2.0
"""BERT's next-sentence pairs, against Devlin's code written plainly."""

import random
from collections import Counter

import numpy as np

from edad_jax.data.segments import Documents, next_sentence_pairs


def reference_pairs(documents, max_length, short_seq_prob, generator):
    """Devlin's create_instances_from_document, written plainly over lists of lists."""
    longest, found = max_length - 3, []
    for number, document in enumerate(documents):
        target = longest
        if generator.random() < short_seq_prob:
            target = generator.randint(2, longest)
        chunk, i = [], 0
        while i < len(document):
            chunk.append(document[i])
            if i == len(document) - 1 or sum(map(len, chunk)) >= target:
                a_end = 1 if len(chunk) == 1 else generator.randint(1, len(chunk) - 1)
                a = sum(chunk[:a_end], [])
                b = []
                if len(chunk) == 1 or generator.random() < 0.5:
                    label = 1
                    other = number
                    while other == number:
                        other = generator.randrange(len(documents))
                    start = generator.randrange(len(documents[other]))
                    for sentence in documents[other][start:]:
                        b += sentence
                        if len(b) >= target - len(a):
                            break
                    i -= len(chunk) - a_end
                else:
                    label = 0
                    b = sum(chunk[a_end:], [])
                while len(a) + len(b) > longest:
                    cut = a if len(a) > len(b) else b
                    del cut[0 if generator.random() < 0.5 else -1]
                found.append((len(a), len(b), label))
                chunk = []
            i += 1
    return found


def numbered_documents(count, seed):
    """Documents whose pieces are 0, 1, 2, ...: a piece says where it stands."""
    generator, starts, position = random.Random(seed), [], 0
    for _ in range(count):
        document = [position]
        for _ in range(generator.randrange(1, 25)):
            position += generator.randrange(1, 30)
            document.append(position)
        starts.append(document)
    return Documents(np.arange(position, dtype=np.int32), starts)


def test_pairs_follow_devlin_in_distribution():
    documents = numbered_documents(300, seed=0)
    nested = [
        [list(range(a, b)) for a, b in zip(starts[:-1], starts[1:], strict=True)]
        for starts in documents.starts
    ]
    ours, theirs = [], []
    for seed in range(5):
        pairs = next_sentence_pairs(
            documents, max_length=64, short_seq_prob=0.1, generator=random.Random(seed)
        )
        ours += [(a1 - a0, b1 - b0, label) for a0, a1, b0, b1, label in pairs]
        theirs += reference_pairs(nested, 64, 0.1, random.Random(seed + 100))
    ours, theirs = np.array(ours, float), np.array(theirs, float)
    assert abs(len(ours) / len(theirs) - 1) < 0.03
    for column in range(3):
        a, b = ours[:, column], theirs[:, column]
        error = np.sqrt(a.var() / len(a) + b.var() / len(b))
        assert abs(a.mean() - b.mean()) < 4 * error
        assert abs(a.std() / b.std() - 1) < 0.06


def test_label_says_whether_b_follows_a():
    documents = numbered_documents(200, seed=1)
    bounds = [(starts[0], starts[-1]) for starts in documents.starts]

    def document_of(position):
        return next(i for i, (start, stop) in enumerate(bounds) if start <= position < stop)

    pairs = next_sentence_pairs(
        documents, max_length=64, short_seq_prob=0.1, generator=random.Random(0)
    )
    labels = Counter()
    for a_start, a_stop, b_start, b_stop, label in pairs:
        assert a_start < a_stop and b_start < b_stop
        assert a_stop - a_start + b_stop - b_start <= 61
        assert (document_of(a_start) == document_of(b_start)) == (label == 0)
        if label == 0:
            assert a_stop <= b_start
            if a_stop - a_start + b_stop - b_start < 61:  # nothing was cut off
                assert a_stop == b_start
        labels[label] += 1
    assert 0.4 < labels[1] / labels.total() < 0.75


def test_every_sentence_is_used_and_unused_ones_are_put_back():
    documents = numbered_documents(100, seed=2)
    pairs = next_sentence_pairs(
        documents, max_length=10_000, short_seq_prob=0.0, generator=random.Random(0)
    )
    used = np.zeros(len(documents.ids), bool)
    for a_start, a_stop, b_start, b_stop, label in pairs:
        used[a_start:a_stop] = True
        if label == 0:
            used[b_start:b_stop] = True
    assert used.all()


def test_truncation_cuts_the_longer_side_as_one_piece_at_a_time_would():
    generator = random.Random(0)
    for _ in range(500):
        a, b, longest = (generator.randrange(1, 60) for _ in range(3))
        longest = max(2, longest)
        a_left, b_left = a, b
        while a_left + b_left > longest:
            if a_left > b_left:
                a_left -= 1
            else:
                b_left -= 1
        # Of two documents of one sentence each, the first pair is the one before the other.
        documents = Documents(np.arange(200, dtype=np.int32), [[0, a], [100, 100 + b]])
        a_start, a_stop, b_start, b_stop, _ = next_sentence_pairs(
            documents, max_length=longest + 3, short_seq_prob=0.0, generator=generator
        )[0]
        assert (a_stop - a_start, b_stop - b_start) == (a_left, b_left)
        assert 0 <= a_start and a_stop <= a and 100 <= b_start and b_stop <= 100 + b
