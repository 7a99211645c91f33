# SPDX-License-Identifier: Apache-2.0
"""Ids of words that were met before are those that the tokenizer gives."""

import numpy as np
import pytest

from edad_jax.data.pieces import PieceTable, split_words
from edad_jax.data.tokenizer import load_tokenizer
from tests.tiny_text import make_documents, write_tokenizer

NASTY = (
    "plain text, (with) punctuation... and [SEP] [MASK] <b>tags</b>",
    "a\x00b\x0bc\x0cd\x1ce\x1ff\x85g\u200bh\u200di\ufeffj\ufffdk\xadl",
    "no\xa0break\u2003em\u3000wide\u2028line\u2029par\u1680ogham\u202fnarrow\u205fmath",
    "É e\u0301 ñ n\u0303 \u0301 ŵ İ ı ſ ﬁ Σσς ΌΣΟΣ ß ẞ",
    "안녕하세요 뇌세포 \u1112\u1161\u11ab 한국어는",
    "中文字符。日本語テキスト ـعربيـ हिन्दी ไทย",
    "\U0001f600 \U0001f468\u200d\U0001f469 \ue000\ue001 x\ue000y \ue001 \U000f0000",
    "\r\n\t tabs\tand\rreturns\n",
    "x" * 300 + " " + "뇌" * 150,
    "",
    " \u200b ",
)


@pytest.mark.parametrize(
    ("lower", "config"),
    [(True, {}), (False, {}), (False, {"strip_accents": False, "tokenize_chinese_chars": False})],
)
def test_cached_ids_equal_the_tokenizer_on_nasty_text(tmp_path, lower, config):
    folder = write_tokenizer(tmp_path, lower=lower, **config)
    tokenizer = load_tokenizer(folder).backend_tokenizer
    table = PieceTable(tokenizer)
    tokenizer.encode_special_tokens = True  # as BERT's own code, which knows none in the text
    candidates = [
        c
        for c in map(chr, range(0x110000))
        if c.isspace() or not c.isprintable() and ord(c) < 0x3100
    ]
    texts = [*NASTY, *(f"ab{c}cell {c} {c}\u0301the." for c in candidates)]
    for _ in range(2):  # the second time everything is known
        pieces = table.encode([split_words(text) for text in texts])
        for number, text in enumerate(texts):
            start, stop = pieces.sentence_starts[number : number + 2]
            expected = tokenizer.encode(text, add_special_tokens=False).ids
            assert pieces.ids[start:stop].tolist() == expected, ascii(text)


def test_table_that_starts_afresh_gives_the_same_ids(tokenizer_dir, monkeypatch):
    tokenizer = load_tokenizer(tokenizer_dir).backend_tokenizer
    sentences = [split_words(text) for text in make_documents(10)]
    expected = PieceTable(tokenizer).encode(sentences).ids
    monkeypatch.setattr("edad_jax.data.pieces.CACHED_CHARACTERS", 10)
    table = PieceTable(tokenizer)
    for _ in range(3):
        np.testing.assert_array_equal(table.encode(sentences).ids, expected)


def test_special_words_in_a_text_are_plain_text(tokenizer_dir):
    tokenizer = load_tokenizer(tokenizer_dir)
    ids = PieceTable(tokenizer.backend_tokenizer).encode([split_words("[SEP] a[MASK]")]).ids
    found = tokenizer.convert_ids_to_tokens(ids.tolist())
    assert found == "[ s ##e ##p ] a [ m ##a ##s ##k ]".split()
