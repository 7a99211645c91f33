# SPDX-License-Identifier: Apache-2.0
"""The edge runtime: what it finds, where it finds it, and what it does with odd texts."""

import numpy as np
import pytest

from edad_jax.runtime import models, windows
from edad_jax.runtime.spans import join_words
from tests.runtime.stand_ins import DRUG, GENE, SMALL
from tests.tiny_text import WORDS


def test_spans_are_where_the_words_are(tagger):
    text = f"  {DRUG.capitalize()} {DRUG}, \u200bé {GENE}\tx\n{DRUG}!"
    (spans,) = tagger([text])
    pair, gene, last = f"{DRUG.capitalize()} {DRUG}", text.index(GENE), text.rindex(DRUG)
    assert [span[:4] for span in spans] == [
        ("Drug", 2, 2 + len(pair), pair),
        ("Gene", gene, gene + len(GENE), GENE),
        ("Drug", last, last + len(DRUG), DRUG),
    ]
    assert all(0.99 < span.score <= 1 for span in spans)


def test_every_word_of_a_long_text_is_judged_once_and_in_place(tagger):
    words = ([GENE, "x", "y"] * 400)[:1000]
    (spans,) = tagger([" ".join(words)])
    assert len(spans) == words.count(GENE)
    starts = [span.start for span in spans]
    assert starts == [i for i in range(len(" ".join(words))) if " ".join(words).startswith(GENE, i)]
    assert max(length for _, length in tagger.session.shapes) == SMALL["max_length"]
    assert max(rows for rows, _ in tagger.session.shapes) == SMALL["batch_size"]


def test_texts_longer_than_a_segment_keep_their_offsets(tagger, monkeypatch):
    text = " ".join([GENE, "x"] * 200)
    (whole,) = tagger([text])
    monkeypatch.setattr(windows, "SEGMENT", 100)
    (cut,) = tagger([text])
    assert cut == whole


def test_words_given_as_words_get_a_label_each(tagger):
    sentences = [[GENE, "unknown-word", DRUG, DRUG], [], ["", "\u200b", GENE] * 9]
    assert tagger.tag_words(sentences) == [
        ["B-Gene", "O", "B-Drug", "I-Drug"],
        [],
        ["O", "O", "B-Gene"] * 9,
    ]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("B-X I-X O", [("X", 0, 3)]),
        ("B-X B-X", [("X", 0, 1), ("X", 2, 3)]),
        ("I-X I-X", [("X", 0, 3)]),
        ("B-X I-Y", [("X", 0, 1), ("Y", 2, 3)]),
        ("S-X B-X E-X S-Y", [("X", 0, 1), ("X", 2, 5), ("Y", 6, 7)]),
        ("O O", []),
        ("", []),
    ],
)
def test_labels_become_spans(labels, expected):
    labels = labels.split()
    starts = [2 * number for number in range(len(labels))]
    spans = join_words(
        "a b c d e", labels, starts, [start + 1 for start in starts], [0.5] * len(labels)
    )
    assert [span[:3] for span in spans] == expected


ODD_TEXTS = [
    "",
    " ",
    "\n\t",
    "\0\0",
    f"a\0b {GENE}",
    "😀😀 🏳️‍🌈",
    "\ud83d alone \udc00",
    "\ud83d\ude00",
    "שלום עולם " + GENE,
    "\u202eright to left\u202c",
    "e\u0301" * 50,
    "x" * 5_000,
    "a\r\nb",
]


@pytest.mark.parametrize("kind", ["tagging", "classification", "encoder"])
def test_odd_texts_are_texts(folders, kind):
    model = models.open_model(folders[kind], **SMALL)
    results = list(model(ODD_TEXTS))
    assert len(results) == len(ODD_TEXTS)
    for text, result in zip(ODD_TEXTS, results, strict=True):
        if kind == "tagging":
            assert all(0 <= span.start < span.end <= len(text) for span in result)
        elif kind == "classification":
            assert sum(result.scores.values()) == pytest.approx(1)
        else:
            assert result.shape == (24,) and np.isfinite(result).all()


AROUND = {
    "emoji": "😀😀 🏳️‍🌈 {} 👩‍👩‍👧",
    "NUL": "a\0b \0 {}\0 \0c",
    "right to left": "שָׁלוֹם עולם {} \u202eمرحبا\u202c",
    "lone surrogates": "\ud83d alone \udc00 {} \ud83d",
    "accents in parts": "e\u0301 " * 30 + "e\u0301, {} o\u0308",
    "Hangul in parts": "\u1112\u1161\u11ab\u1100\u1173\u11af {} \u1102\u116c",
    "a long word": "x" * 5_000 + " {} y",
    "ends of lines": "a\r\n\u2028{}\r\nb",
    "no letter": "\u200b\ufeff\u00ad {}\u00a0\ufffd",
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_odd_text_around_a_word_does_not_move_it(tagger, answerer, around):
    text = around.format(GENE)
    start = text.index(GENE)
    (spans,) = tagger([text])
    assert [span[:4] for span in spans] == [("Gene", start, start + len(GENE), GENE)]
    ((answer,),) = answerer([("what?", text)])
    assert answer[:3] == (GENE, start, start + len(GENE))


def test_megabytes_are_one_text_and_reading_it_is_linear(tagger):
    text = f"{GENE} {'x' * 490} " * 4_100  # words beyond 100 letters are one unknown piece
    (spans,) = tagger([text])
    assert len(text) > 2_000_000
    assert len(spans) == 4_100
    assert spans[-1].start == text.rindex(GENE)
    read = sum(rows * length for rows, length in tagger.session.shapes)
    assert read < 2.1 * len(tagger.tokenize(text).ids)  # windows of twelve, six of them new


def test_what_goes_into_json_can_be_written(tagger):
    (spans,) = tagger([f"{DRUG} \ud800 {GENE}"])
    whole = [spans[0]._replace(text="a\ud800")]
    assert models.as_json(whole)["entities"][0]["text"] == "a\ufffd"
    answers = models.Answers([models.Answer("\ud800", 0, 1, 0.5)])
    assert models.as_json(answers)["answers"][0]["text"] == "\ufffd"


def test_a_text_is_judged_alike_alone_and_among_others(folders):
    texts = [f"{DRUG} {GENE} {WORDS[n]} x" * (1 + n % 3) for n in range(10)]
    for kind in ("classification", "encoder"):
        model = models.open_model(folders[kind], **SMALL)
        together, alone = list(model(texts)), [next(iter(model([text]))) for text in texts]
        if kind == "encoder":
            np.testing.assert_allclose(together, alone, atol=1e-5)
        else:
            for one, other in zip(together, alone, strict=True):
                assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_texts_are_read_as_they_are_asked_for(tagger, monkeypatch):
    monkeypatch.setattr(windows, "CHUNK", 500)
    read = []

    def stream():
        for number in range(1_000):
            read.append(number)
            yield GENE

    results = tagger(stream())
    assert [span.label for span in next(results)] == ["Gene"]
    assert len(read) < 10


def test_answers_are_parts_of_the_context(answerer):
    context = "x " * 40 + f"y, {GENE.upper()}  {GENE}! " + "z " * 40
    for question in (GENE, f"{GENE} " * 50, ""):
        ((answer,),) = answerer([(question, context)])
        assert answer.text == context[answer.start : answer.end] == f"{GENE.upper()}  {GENE}"
        assert 0 < answer.score <= 1
    assert max(ids.shape[1] for ids, _ in answerer.session.seen) == SMALL["max_length"]


def test_the_best_answers_come_first_and_none_is_too_long(answerer, folders):
    context = f"{GENE} x {GENE} {GENE} x"
    answerer.top_k = 3
    (answers,) = answerer([("what", context)])
    assert len(answers) == 3
    assert [answer.score for answer in answers] == sorted(
        (answer.score for answer in answers), reverse=True
    )
    assert len({(answer.start, answer.end) for answer in answers}) == 3
    answerer.max_answer_length = 1
    (answers,) = answerer([("what", context)])
    assert answers[0].text == GENE
    with pytest.raises(ValueError, match="got top_k=0"):
        models.QuestionAnswerer(folders["answering"], top_k=0, **SMALL)


def test_an_empty_context_has_no_answer_and_says_so_in_json(answerer):
    assert models.as_json(next(answerer([("what", " ")]))) == {"answers": []}


def test_short_pairs_are_read_in_one_run_each_with_its_own_question(answerer):
    pairs = [(f"{GENE} x", f"{GENE} y z"), (GENE, f"x {GENE}"), ("x", " ")]
    assert [[answer.start for answer in each] for each in answerer(pairs)] == [[0], [2], []]
    ((_, segments),) = answerer.session.seen
    assert segments.tolist() == [
        [0, 0, 0, 1, 1, 1, 0, 0],  # [CLS] GENE [SEP] x GENE [SEP], padded
        [0, 0, 0, 0, 1, 1, 1, 1],  # [CLS] GENE x [SEP] GENE y z [SEP]
    ]


def test_pairs_are_answered_alike_alone_and_among_others(folders):
    answerer = models.open_model(folders["answering"], **SMALL)
    words = WORDS[:19]
    pairs = [(" ".join(words[: n % 3]), " ".join(words[n : n + 7 * (n % 4)])) for n in range(12)]
    together, alone = list(answerer(pairs)), [next(answerer([pair])) for pair in pairs]
    assert [len(each) for each in together] == [min(n % 4, 1) for n in range(12)]
    for (_, context), one, other in zip(pairs, together, alone, strict=True):
        assert [answer[:3] for answer in one] == [answer[:3] for answer in other]
        assert [answer.score for answer in one] == pytest.approx([a.score for a in other], abs=2e-4)
        assert all(context[answer.start : answer.end] == answer.text for answer in one)


def test_pairs_are_read_as_they_are_asked_for(answerer, monkeypatch):
    monkeypatch.setattr(windows, "CHUNK", 500)
    read = []

    def stream():
        for number in range(1_000):
            read.append(number)
            yield "x" * 100, GENE

    results = answerer(stream())
    assert [answer.text for answer in next(results)] == [GENE]
    assert len(read) < 5


def test_a_real_net_answers_too(folders):
    answerer = models.open_model(folders["answering"], **SMALL)
    pairs = [("who?", text) for text in ODD_TEXTS]
    for text, answers in zip(ODD_TEXTS, answerer(pairs), strict=True):
        assert len(answers) == (len(answerer.tokenize(text).ids) > 0)
        assert all(0 <= one.start < one.end <= len(text) for one in answers)
