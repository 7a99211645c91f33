# SPDX-License-Identifier: Apache-2.0
"""Labels by rule: what authors mark in docstrings is an entity, and nothing else is."""

import sys

import pytest

from chain.docstring_labels import Names, make_labels, tag_docstring, write_labels
from edad_jax.tasks.data.tagged import read_tagged

NAMES = Names(frozenset({"mean", "fit"}), frozenset({"Axes"}))


def entities(text, parameters=("axis", "a")):
    """Returns the words that are tagged, with their kinds."""
    return [
        (word, tag.removeprefix("B-"))
        for words, tags in tag_docstring(text, frozenset(parameters), NAMES)
        for word, tag in zip(words, tags, strict=True)
        if tag != "O"
    ]


@pytest.mark.parametrize(
    ("marked", "kind"),
    [
        ("`axis`", "PARAMETER"),
        ("``axis``", "PARAMETER"),
        (":func:`~numpy.mean`", "FUNCTION"),
        ("``compute()``", "FUNCTION"),
        (":class:`Axes <matplotlib.axes>`", "TYPE"),
        ("``ndarray``", "TYPE"),
    ],
)
def test_a_marked_name_is_an_entity_of_its_kind_without_its_marks(marked, kind):
    ((word, found),) = entities(f"We look at {marked} in this sentence.")
    assert found == kind
    assert not set(word) & set("`:()")


@pytest.mark.parametrize("text", ["Look at axis and mean here.", "Look at `x + 1` and ``5`` here."])
def test_what_is_not_marked_or_no_name_is_no_entity(text):
    assert entities(text) == []


def test_a_parameters_line_names_it_and_its_types_and_is_read_with_what_is_said_of_it():
    text = (
        "Mean.\n\nParameters\n----------\na : array_like, optional\n    The data that it takes.\n"
    )
    ((words, tags),) = tag_docstring(text, frozenset({"a"}), NAMES)
    assert words[:4] == ("a", ":", "array_like", ",") and words[-2:] == ("takes", ".")
    assert tags[:3] == ("B-PARAMETER", "O", "B-TYPE")


def test_examples_of_code_are_left_out():
    assert entities("Text.\n\n>>> use(`axis`) and see what it gives\n... `axis` goes on here") == []


def test_splits_are_by_file_and_read_as_tagged_data(tmp_path, monkeypatch):
    package = tmp_path / "site" / "edad_tiny_package"
    package.mkdir(parents=True)
    for number in range(40):
        body = f'"""Adds value {number} over the `axis` that is given."""'
        (package / f"m{number}.py").write_text(f"def fit(axis):\n    {body}\n")
    (package / "broken.py").write_text("def (")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(package.parent)
    sentences = make_labels(["edad_tiny_package"])
    assert len(sentences) == 40
    counts = write_labels(sentences, tmp_path / "labels")
    assert sum(counts.values()) == 40 and min(counts.values()) > 0
    splits, _ = read_tagged(str(tmp_path / "labels"))
    assert {name: len(each) for name, each in splits.items()} == counts
    some = make_labels(["edad_tiny_package"], most=7)
    assert len(some) == 7 and set(some) <= set(sentences)
    sys.modules.pop("edad_tiny_package", None)


def test_a_split_without_sentences_is_told(tmp_path):
    with pytest.raises(ValueError, match="got no sentence for the test split"):
        write_labels([], tmp_path)
