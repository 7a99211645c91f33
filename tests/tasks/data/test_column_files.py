# SPDX-License-Identifier: Apache-2.0
"""Files of a token a line as they are published: numbers, comments, blanks and other columns."""

import datasets
import pytest

from edad_jax.tasks.data.tagged import read_tagged

WORDS = (("Aspirin", "helps"), ("A", "bad", "cold"), ("It", "was", "the", "cold", "flu"))
TAGS = (("B-Drug", "O"), ("O", "B-Ill", "I-Ill"), ("O", "O", "O", "B-Ill", "I-Ill"))
PAIRS = [list(zip(words, tags, strict=True)) for words, tags in zip(WORDS, TAGS, strict=True)]
PLAIN = "\n\n".join("\n".join("\t".join(pair) for pair in pairs) for pairs in PAIRS) + "\n"


def write(folder, content, suffix=".tsv", **others):
    """Writes the same into every split, but for those that are given; returns the folder."""
    for name in ("train", "devel", "test"):
        (folder / f"{name}{suffix}").write_text(others.get(name, content), encoding="utf-8")
    return str(folder)


def build(row, head=lambda number: "", repeat=4):
    """Returns a file of a line for each row(place in sentence, word, tag, sentence, running)."""
    blocks, running = [], 0
    for number, pairs in enumerate(PAIRS * repeat):
        lines = []
        for place, (word, tag) in enumerate(pairs, start=1):
            running += 1
            lines.append(row(place, word, tag, number, running))
        blocks.append(head(number) + "\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def has_message(report, *parts):
    return any(all(part in message for part in parts) for message in report.messages)


def content_of(sentences):
    return [(each.words, each.tags) for each in sentences]


LAYOUTS = {
    "conllu-like": lambda place, word, tag, number, running: f"{place}\t{word}\t{tag}",
    "from-nought": lambda place, word, tag, number, running: f"{place - 1} {word} {tag}",
    "running": lambda place, word, tag, number, running: f"{running}\t{word}\t{tag}",
    "sentence-number": lambda place, word, tag, number, running: f"{number} {word} {tag}",
    "two-numbers": lambda place, word, tag, number, running: f"{number}\t{place}\t{word}\t{tag}",
    "offsets": lambda place, word, tag, number, running: f"{running}:{running + 3}\t{word}\t{tag}",
    "names": lambda place, word, tag, number, running: f"doc{number}.xml\t{word}\t{tag}",
    "names-that-count": lambda place, word, tag, number, running: f"t{running}\t{word}\t{tag}",
    "only-first": lambda place, word, tag, number, running: (
        f"{'' if place > 1 else f'Sentence: {number}'}\t{word}\t{tag}"
    ),
    "uner": lambda place, word, tag, number, running: f"{place}\t{word}\t{tag}\t-\t-",
    "hashes": lambda place, word, tag, number, running: f"{running * 7919:08x}\t{word}\t{tag}",
    "tag-first": lambda place, word, tag, number, running: f"{tag}\t{word}",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_column_of_words_is_the_one_that_holds_words(tmp_path, layout):
    splits, report = read_tagged(write(tmp_path, build(LAYOUTS[layout])))
    for split in ("train", "validation", "test"):
        assert content_of(splits[split]) == list(zip(WORDS, TAGS, strict=True)) * 4
    assert not report.problems
    assert has_message(report, "train.tsv: words from column", "(Aspirin, helps, A)")


def test_a_first_column_of_words_stays_it_whatever_stands_beside(tmp_path):
    rows = build(lambda place, word, tag, number, running: f"{word} {place} NN {running} {tag}")
    splits, report = read_tagged(write(tmp_path, rows))
    assert splits["train"][0].words == WORDS[0]
    assert not has_message(report, "words from column")


def test_numbers_choose_the_columns_of_files(tmp_path):
    rows = build(lambda place, word, tag, number, running: f"{word}\t{tag}\t{word.upper()}\tO")
    splits, _ = read_tagged(write(tmp_path, rows), word_key="2", tag_key="1")
    assert content_of(splits["test"][:1]) == [(("ASPIRIN", "HELPS"), ("B-Drug", "O"))]
    with pytest.raises(ValueError, match=r"text_key=4, expected the number of a column, 0 to 3"):
        read_tagged(str(tmp_path), word_key="4")
    with pytest.raises(ValueError, match=r"column 0 \(Aspirin, helps.*label_key=tags, expected"):
        read_tagged(str(tmp_path), tag_key="tags")


def test_the_last_of_several_columns_of_tags_is_read_and_the_others_are_named(tmp_path):
    rows = build(lambda place, word, tag, number, running: f"{place}\t{word}\t{tag}\tO")
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="got the tag O for every word"):
        read_tagged(write(tmp_path / "a", rows))
    splits, _ = read_tagged(str(tmp_path / "a"), tag_key="2")
    assert splits["train"][0] == (*splits["train"][0][:1], TAGS[0], "train.tsv:1", ())
    _, report = read_tagged(write(tmp_path, rows.replace("I-Ill\tO", "I-Ill\tB-Part")))
    assert has_message(report, "tags from column 3, the last of several", "label_key", "(2)")


def test_a_file_without_a_column_of_words_is_an_error_that_names_the_columns(tmp_path):
    rows = build(lambda place, word, tag, number, running: f"{place}\t{tag}")
    with pytest.raises(
        ValueError, match=r"column 0 \(1, 2, 3\), column 1 .* none that holds words"
    ):
        read_tagged(write(tmp_path, rows))
    splits, _ = read_tagged(str(tmp_path), word_key="0")  # they may be the words all the same
    assert splits["train"][0].words == ("1", "2")


@pytest.mark.parametrize("make", [str.lower, str])
def test_tags_in_lower_case_are_tags(tmp_path, make):
    rows = build(lambda place, word, tag, number, running: f"{word}\t{make(tag)}")
    splits, _ = read_tagged(write(tmp_path, rows, test=rows))
    kinds = {make("Ill"), make("Drug"), make("New")}
    for split in ("train", "test"):
        assert {tag[2:] for each in splits[split] for tag in each.tags if tag != "O"} <= kinds
        assert any(tag.startswith("B-") for each in splits[split] for tag in each.tags)


def test_a_first_line_of_names_is_no_sentence(tmp_path):
    rows = build(lambda place, word, tag, number, running: f"{word}\t{tag}")
    splits, report = read_tagged(write(tmp_path, "Word\tNER tag\n".replace(" ", "_") + rows))
    assert splits["train"][0].words != ("Word",)
    assert not any("skipped" in reason for reason in report.problems)
    assert has_message(report, "train.tsv:1: names of columns")


def test_a_first_column_may_begin_the_sentences_of_a_file_without_blank_lines(tmp_path):
    rows = build(LAYOUTS["only-first"])
    (tmp_path / "a").mkdir()
    expected, _ = read_tagged(write(tmp_path / "a", rows))
    splits, _ = read_tagged(write(tmp_path, rows.replace("\n\n", "\n")))
    assert content_of(splits["train"]) == content_of(expected["train"])


def test_a_file_without_any_border_of_sentences_is_told(tmp_path):
    rows = build(lambda place, word, tag, number, running: f"{word}\t{tag}", repeat=300)
    _, report = read_tagged(write(tmp_path, rows.replace("\n\n", "\n"), devel=rows))
    assert has_message(report, "train.tsv:1: a sentence of", "expected a blank line")
    assert not has_message(report, "devel.tsv:1: a sentence of")


def test_lines_of_conllu_that_repeat_or_stand_for_words_are_no_words(tmp_path):
    sentence = "1\tI\tO\n2-3\tvamonos\t_\n2\tvamos\tO\n3\tnos\tB-Per\n3.1\tgone\t_\n4\tnow\tB-New\n"
    splits, report = read_tagged(write(tmp_path, build(LAYOUTS["conllu-like"]), test=sentence))
    assert content_of(splits["test"]) == [
        (("I", "vamos", "nos", "now"), ("O", "O", "B-Per", "B-New"))
    ]
    assert has_message(report, "test.tsv: 2 lines such as 1-2 or 8.1 not used")
    assert has_message(report, "test.tsv:6: label unseen in training (New)")


@pytest.mark.parametrize(
    ("head", "layout"),
    [
        ("## klue-ner-v1_dev_{}-nsmc\t<a:PS> b\n", "{word}\t{tag}"),
        ("# id ab{}\tdomain=en\n", "{word} _ _ {tag}"),
        ("# id ab{}\n", "{word}\t{tag}"),
        ("#\thttp://de.wikipedia.org/{}\t[2009-10-17]\n", "{place}\t{word}\t{tag}"),
        ("# newdoc\n# sent_id = {}\n# text = It has type O\n", "{place}\t{word}\t{tag}"),
        ("# text = O {}\n# text = vitamin O\n", "{word} x y z {tag}"),
        ("###MEDLINE:9536{}\n\n", "{word}\t{tag}"),
        (" # id {} domain=en\n", "{word} {tag}"),
        ("#begin document (bc/{});\n", "{word}\t{tag}"),
        ("## {}\tO\n", "{word}\t{tag}"),
        ("# global.columns = ID\n\n# id={}\n", "{place} {word} {tag}"),
    ],
)
def test_comments_before_a_sentence_are_no_tokens_and_are_counted(tmp_path, head, layout):
    content = build(
        lambda place, word, tag, number, running: layout.format(place=place, word=word, tag=tag),
        head=lambda number: head.format(number),
    )
    splits, report = read_tagged(write(tmp_path, content))
    assert content_of(splits["test"]) == list(zip(WORDS, TAGS, strict=True)) * 4
    assert not report.problems
    assert has_message(report, "comment lines before sentences not used")


@pytest.mark.parametrize("word", ["#", "##", "#metoo", "#1"])
@pytest.mark.parametrize("separator", ["\t", " "])
def test_a_word_that_begins_with_a_hash_is_a_word(tmp_path, word, separator):
    content = f"{word}\tO\nflu\tB-Ill\n\n{PLAIN}".replace("\t", separator)
    splits, report = read_tagged(write(tmp_path, content))
    assert splits["train"][0].words == (word, "flu") and not report.problems
    assert not has_message(report, "comment")


def test_a_hash_without_a_tag_costs_its_sentence(tmp_path):
    _, report = read_tagged(write(tmp_path, PLAIN, train=f"#metoo\nflu\tB-Ill\n\n{PLAIN}"))
    assert has_message(report, "train.tsv:1: sentence skipped: a token without a tag", "#metoo")


@pytest.mark.parametrize("blank", [" ", "  ", "\u00a0", "\u3000", "\u2028", "\x0b", "\r"])
def test_a_token_of_white_space_is_a_word_with_its_tag(tmp_path, blank):
    content = f"안\tB-PS\n{blank}\tO\n글\tO\n\n{PLAIN}"
    splits, report = read_tagged(write(tmp_path, content))
    for split in splits.values():
        assert split[0].words == ("안", blank, "글") and split[0].tags == ("B-PS", "O", "O")
    assert not report.problems


def test_a_blank_between_blanks_is_a_word(tmp_path):
    splits, report = read_tagged(write(tmp_path, "a O\n  O\nb B-Ill\n\nc O\n"))
    assert splits["train"][0].words == ("a", " ", "b") and not report.problems


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [("BMES", "B-G M-G M-G E-G O S-G"), ("BMEWO", "B-G M-G M-G E-G O W-G")],
)
def test_schemes_with_a_middle_become_iob2(tmp_path, scheme, tags):
    content = "".join(f"w\t{tag}\n" for tag in tags.split())
    splits, report = read_tagged(write(tmp_path, content))
    assert splits["test"][0].tags == ("B-G", "I-G", "I-G", "I-G", "O", "B-G")
    assert not report.problems and has_message(report, f"the tags are {scheme}: turned into IOB2")


@pytest.mark.parametrize("tags", ["O B I O B", "O B E O S", "O B L O U"])
def test_tags_without_a_type_are_of_one(tmp_path, tags):
    content = "".join(f"w\t{tag}\n" for tag in tags.split())
    splits, report = read_tagged(write(tmp_path, content, test="w\tO\n"))
    assert splits["train"][0].tags == ("O", "B-Entity", "I-Entity", "O", "B-Entity")
    assert splits["test"][0].tags == ("O",) and not report.problems
    assert has_message(report, "the tags have no type: all are of one, Entity")


def test_tags_without_a_type_among_others_are_bad_tags(tmp_path):
    with pytest.raises(ValueError, match="got 1 of the 4 sentences of test"):
        read_tagged(write(tmp_path, PLAIN, test=f"flu\tB\n\n{PLAIN}"))


@pytest.mark.parametrize("named", [True, False])
def test_a_data_set_may_have_bare_tags_and_words_of_white_space(tmp_path, named):
    tags = [[0, 1, 2]] if named else [["O", "B", "I"]]
    value = datasets.ClassLabel(names=["O", "B", "I"]) if named else datasets.Value("string")
    features = {"tokens": datasets.Sequence(datasets.Value("string"))}
    features["ner_tags"] = datasets.Sequence(value)
    rows = datasets.Dataset.from_dict(
        {"tokens": [[" ", "a", "b"]], "ner_tags": tags}, features=datasets.Features(features)
    )
    datasets.DatasetDict(train=rows, validation=rows, test=rows).save_to_disk(str(tmp_path))
    splits, report = read_tagged(str(tmp_path))
    assert content_of(splits["test"]) == [((" ", "a", "b"), ("O", "B-Entity", "I-Entity"))]
    assert not report.problems


def test_a_sentence_dropped_from_the_test_split_is_an_error_unless_allowed(tmp_path):
    folder = write(tmp_path, PLAIN, test=f"flu\tX-Ill\n\n{PLAIN}")
    with pytest.raises(ValueError, match=r"1 of the 4 sentences of test.*allow_skipped_test=True"):
        read_tagged(folder)
    splits, report = read_tagged(folder, allow_skipped_test=True)
    assert len(splits["test"]) == 3 and report.problems["test: sentences skipped"] == 1
    assert has_message(report, "test: the score will be of a part: 1 of the 4 sentences")


@pytest.mark.parametrize("split", ["train", "devel"])
def test_a_sentence_dropped_from_another_split_is_counted_only(tmp_path, split):
    _, report = read_tagged(write(tmp_path, PLAIN, **{split: f"flu\tX-Ill\n\n{PLAIN}"}))
    assert has_message(report, f"{split}.tsv:1: sentence skipped", "X-Ill")


@pytest.mark.parametrize(
    "test", ["one\ntwo\n\nthree\n", "one\tNN\ntwo\tVB\n", "one\t_\n", "one\t\n"]
)
def test_a_test_file_without_tags_is_left_out_with_a_word(tmp_path, test):
    splits, report = read_tagged(write(tmp_path, PLAIN, test=test))
    assert list(splits) == ["train", "validation"]
    assert has_message(report, "test.tsv: split not used, since it has no tags")


def test_a_test_file_of_unreadable_tags_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="got 0 sentences to use for test"):
        read_tagged(write(tmp_path, PLAIN, test="flu\tX-Ill\n"))
