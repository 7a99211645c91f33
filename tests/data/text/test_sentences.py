# SPDX-License-Identifier: Apache-2.0
"""Sentence splitting, against sentences split by hand."""

import random
import time

import pytest

from edad_jax.data.text.sentences import split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["We saw it in mice.", "It was large (Fig. 2).", "No effect was found."],
        ["Smith et al. (2019) gave 1.5 mg i.v. to J. R. Lee, e.g. at noon.", "Dr. Yu did not."],
        ["the dose was low.", "it had no effect.", "why?", "nobody knows."],
        ["Is it so?", "Yes!", '"It is."', "He left…", "She stayed."],
        ["안녕하세요.", "저는 학생이에요.", "뇌는 세포로 이루어져 있다.", "정말요?", "네!"],
        ["هل هذا صحيح؟", "نعم."],
        ["यह एक वाक्य है।", "यह दूसरा है।"],
        ["It is in 2.", "12 patients died."],
        ["2.1. Methods and materials.", "We used rats."],
        ["The result was significant (p < 0.05).", "[See below.]", "Done."],
    ],
)
def test_sentences_are_those_split_by_hand(sentences):
    assert split_sentences(" ".join(sentences)) == sentences


def test_chinese_needs_no_space():
    sentences = ["这是句子。", "这是「另一句。」", "完"]
    assert split_sentences("".join(sentences)) == sentences


def test_line_end_ends_a_sentence():
    assert split_sentences("A title\nA text without end\n\n 다음 ") == [
        "A title",
        "A text without end",
        "다음",
    ]


def test_small_letter_continues_a_sentence_that_has_capitals():
    assert len(split_sentences("The approx. value of Xyz. and more.")) == 1


def test_no_character_but_white_space_is_lost():
    generator = random.Random(0)
    alphabet = 'aA1 .. ?!\n\t…。」)"’ 다요é\u0301\u200b\x85\x1c\U0001f600'
    for _ in range(2000):
        text = "".join(generator.choices(alphabet, k=generator.randrange(60)))
        assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


def seconds(text):
    """Returns the least processor time of several tries, which a busy machine hardly changes."""
    times = []
    for _ in range(5):
        start = time.thread_time()
        split_sentences(text)
        times.append(time.thread_time() - start)
    return min(times)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "Seen by Smith et al. in 1.5 mm of tissue, e.g. in mice. " * (n // 56),
        lambda n: "word " * (n // 5),
        lambda n: "." * n,
        lambda n: ". " * (n // 2),
        lambda n: "a" * n + ". b",
        lambda n: "1." * (n // 2) + " x",
    ],
    ids="prose endless stops spaced-stops one-word numbers".split(),
)
def test_time_grows_as_the_text_does_whatever_it_is(make):
    # Eight times the text: 8 times the time, where a step that looks back over it all takes 64.
    assert seconds(make(8_000)) < 24 * seconds(make(1_000))
