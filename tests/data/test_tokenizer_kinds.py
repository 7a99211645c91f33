# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of every kind: from their files to rows, by one description."""

import json
import random
import unicodedata

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from edad_jax.data.pieces import PieceTable, SentenceTable, table_for
from edad_jax.data.segments import encode_documents
from edad_jax.data.tokenizer import SPECIAL_TOKENS, load_tokenizer, tokenizes_alike
from edad_jax.data.vocabulary import extend_vocabulary
from tests.tiny_text import load_rows, make_documents, make_tiny_rows
from tests.tiny_tokenizers import KINDS, KOREAN, write_kind, write_model

OTHERS = KINDS[1:]
_ALPHABETS = (
    "abcdefgh THE cells .,;()",
    "해마는 기억을 뇌세포",
    "\u0301\u0300é ñ ﬁ ① ２ Ａ İß",
    " \t\n\u3000\xa0\u200b\ufeff",
    "中文字日本語カナｶﾅ",
    "\U0001f600\U0001f468\u200d\U0001f469 ـعربي हिन्दी ไทย",
    "\u1112\u1161\u11ab",
)
_SPECIAL_WORDS = ("<s>", "</s>", "<mask>", "<pad>", "<unk>", "[MASK]", "[SEP]", "[CLS]", "＜mask＞")


def real_and_fuzzed(count):
    """Returns texts: sentences of documents, and as many of odd characters."""
    generator = random.Random(0)
    texts = [line for document in make_documents(count // 8, seed=5) for line in document.split()]
    texts = [" ".join(texts[i : i + 12]) for i in range(0, len(texts), 12)][:count]
    for _ in range(count):
        drawn = generator.choices(_ALPHABETS, k=generator.randrange(1, 25))
        texts.append("".join(map(generator.choice, drawn)))
    return [*texts, *(f"a{word}b {word} {word}{word}" for word in _SPECIAL_WORDS), KOREAN, "", " "]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder of each kind, by name; nobody may change them."""
    where = tmp_path_factory.mktemp("kinds")
    return {kind: write_kind(kind, where / kind) for kind in KINDS}


@pytest.fixture(params=OTHERS)
def kind(request):
    return request.param


# Text to ids


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_rows_are_the_tokenizers_own(folders, kind):
    tokenizer = load_tokenizer(folders[kind])
    backend = tokenizer.backend_tokenizer
    table = table_for(backend)
    assert isinstance(table, PieceTable if kind == "wordpiece" else SentenceTable)
    texts = real_and_fuzzed(600)
    pieces = table.encode([table.split(text, is_first=True) for text in texts])
    blanks = texts if kind == "wordpiece" else [" ".join(text.split()) for text in texts]
    backend.encode_special_tokens = True
    expected = backend.encode_batch(blanks, add_special_tokens=False)
    stops = pieces.sentence_starts.tolist()
    for number, encoding in enumerate(expected):
        ours = pieces.ids[stops[number] : stops[number + 1]].tolist()
        assert ours == encoding.ids, ascii(texts[number])


def test_sentences_of_a_document_are_its_text(folders, kind):
    """So the blank before a sentence counts, where pieces have it."""
    backend = load_tokenizer(folders[kind]).backend_tokenizer
    text = "The cell binds. The gene was a protein. 뇌세포의 안녕."
    documents = encode_documents([text, text], table_for(backend), 32)
    assert [len(starts) for starts in documents.starts] == [4, 4]
    whole = backend.encode(text, add_special_tokens=False).ids
    assert documents.ids.tolist() == whole * 2


def test_the_same_pieces_come_from_each_form_of_files(folders):
    read = {kind: load_tokenizer(folders[kind]) for kind in OTHERS}
    assert tokenizes_alike(read["bytes"], read["merges"])
    assert not tokenizes_alike(read["bytes"], read["unigram"])
    plain, koberts = read["sentencepiece"], read["kobert"]
    for text in ("the hippocampus binds", "뇌세포의 안녕 한국어"):
        assert plain.tokenize(text) == koberts.tokenize(text)
    # KoBERT's ids are those of vocab.txt, whatever order the .model has.
    names = (folders["kobert"] / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert koberts.convert_ids_to_tokens(range(len(koberts))) == names
    assert names[:5] == ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]


def test_special_pieces_are_found_by_their_role(folders, kind):
    tokenizer = load_tokenizer(folders[kind])
    korean = kind in ("sentencepiece", "kobert")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names = names if korean else ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    assert [getattr(tokenizer, role) for role in SPECIAL_TOKENS] == names
    framed = tokenizer("the gene", "a cell")["input_ids"]
    assert framed[0] == tokenizer.cls_token_id and framed[-1] == tokenizer.sep_token_id
    assert framed.count(tokenizer.sep_token_id) == 2


def test_roles_that_a_config_names_win(tmp_path):
    folder = write_kind("unigram", tmp_path / "named")
    config = {"cls_token": "</s>", "mask_token": {"content": "<mask>"}, "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.cls_token, tokenizer.model_max_length) == ("</s>", 77)
    assert tokenizer.sep_token == "</s>"  # XLM begins and ends texts with the same piece


def test_no_text_can_name_a_special_piece(folders, kind):
    tokenizer = load_tokenizer(folders[kind])
    specials = {getattr(tokenizer, f"{role}_id") for role in SPECIAL_TOKENS}
    specials -= {tokenizer.unk_token_id}  # what is unknown may be
    table = table_for(tokenizer.backend_tokenizer)
    for word in _SPECIAL_WORDS:
        for text in (word, f"the{word}cell", f"{word} {word}"):
            ids = table.encode([table.split(text, is_first=True)]).ids
            assert len(ids) > 1 and not specials & set(ids.tolist()), text
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert len(ids) > 1 and not specials & set(ids), text


def test_rows_have_special_pieces_only_around_texts(folders, kind, tmp_path):
    manifest = make_tiny_rows(make_documents(20), folders[kind], tmp_path / "rows")
    rows = load_rows(tmp_path / "rows" / "train")
    tokenizer = load_tokenizer(folders[kind])
    cls, sep, pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    assert manifest["vocabulary_size"] == len(tokenizer)
    assert (rows["ids"][:, 0] == cls).all()
    assert ((rows["ids"] == sep).sum(axis=1) == 2).all()
    inside = np.arange(rows["ids"].shape[1]) < rows["length"][:, None]
    assert (rows["ids"][~inside] == pad).all() and not (rows["ids"][inside] == pad).any()
    ordinary = rows["ids"][inside & (rows["ids"] != sep) & (np.arange(32) > 0)]
    assert not set(ordinary.tolist()) & {cls, tokenizer.mask_token_id}  # so none can be masked


# The vocabulary


def test_a_vocabulary_that_does_not_grow_is_written_as_it_is(folders, kind, tmp_path):
    before = load_tokenizer(folders[kind])
    report = extend_vocabulary(folders[kind], [], size=0, out=tmp_path / "out", progress=False)
    after = load_tokenizer(tmp_path / "out")
    assert (report.size, report.added) == (len(before), 0)
    assert tokenizes_alike(before, after)
    assert after.backend_tokenizer.to_str() == before.backend_tokenizer.to_str()
    for role in SPECIAL_TOKENS:
        assert getattr(after, role) == getattr(before, role)
    text = unicodedata.normalize("NFC", KOREAN)
    assert after(text)["input_ids"] == before(text)["input_ids"]


# What is no such tokenizer


def test_a_tokenizer_without_a_mask_is_an_error(tmp_path):
    folder = write_kind("bytes", tmp_path / "decoder")
    said = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    del said["model"]["vocab"]["<mask>"]
    said["model"]["vocab"]["spare"] = 4
    said["added_tokens"] = [each for each in said["added_tokens"] if each["content"] != "<mask>"]
    (folder / "tokenizer.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ValueError, match="lacks mask_token, expected a piece for each"):
        load_tokenizer(folder)


@pytest.mark.parametrize(("role", "piece"), [("cls", "<unk>"), ("unk", "<mask>")])
def test_an_unknown_word_that_is_another_role_too_is_an_error(tmp_path, role, piece):
    folder = write_kind("bytes", tmp_path / "own")
    (folder / "tokenizer_config.json").write_text(json.dumps({f"{role}_token": piece}))
    with pytest.raises(ValueError, match=f"got '{piece}' as unk_token and (cls|mask)_token, exp"):
        load_tokenizer(folder)


def test_merges_that_do_not_fit_are_an_error(tmp_path):
    folder = write_kind("merges", tmp_path / "merges")
    with open(folder / "merges.txt", "a", encoding="utf-8") as file:
        file.write("zz yy\n")
    with pytest.raises(ValueError, match="merges.txt and vocab.json do not fit together"):
        load_tokenizer(folder)


def test_a_model_beside_another_vocabulary_is_an_error(tmp_path):
    folder = write_kind("kobert", tmp_path / "kobert")
    with open(folder / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("한국\n")
    with pytest.raises(ValueError, match="has 140 pieces and the vocab.txt beside it 141.*한국"):
        load_tokenizer(folder)


def test_two_models_in_a_folder_are_an_error(tmp_path):
    folder = write_kind("sentencepiece", tmp_path / "two")
    write_model(folder / "other.model")
    with pytest.raises(ValueError, match="2 files that end in .model .other.model, spiece.model."):
        load_tokenizer(folder)


@pytest.mark.parametrize("cut", [1, 2, 10, 400])
def test_a_model_that_is_cut_off_is_an_error(tmp_path, cut):
    path = write_kind("sentencepiece", tmp_path / "cut") / "spiece.model"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match="cannot be read as a SentencePiece model.*fetch it"):
        load_tokenizer(path.parent)


def test_a_model_of_another_algorithm_is_an_error(tmp_path):
    (tmp_path / "bpe").mkdir()
    write_model(tmp_path / "bpe" / "spiece.model", algorithm=2)
    with pytest.raises(ValueError, match="got the algorithm BPE, expected unigram"):
        load_tokenizer(tmp_path / "bpe")


def test_a_tokenizer_json_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    with pytest.raises(ValueError, match="the tokenizer cannot be read"):
        load_tokenizer(tmp_path)


def test_a_kind_that_is_not_read_names_those_that_are(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="kind WordLevel, expected one of WordPiece, Unigram, BPE"):
        load_tokenizer(tmp_path)


def test_special_pieces_of_one_character_are_an_error(tmp_path):
    folder = write_kind("unigram", tmp_path / "short")
    (folder / "tokenizer_config.json").write_text(json.dumps({"cls_token": "a"}))
    with pytest.raises(ValueError, match="special pieces .'a'. of one character"):
        load_tokenizer(folder)
