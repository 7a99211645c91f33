# SPDX-License-Identifier: Apache-2.0
"""The page stands alone, is sound HTML, and says in words what it shows in colours."""

import re
from html.parser import HTMLParser

import pytest

from chain.examples import show_entities
from chain.scores import Tagged
from edad_jax.report.glossary import WORDS
from edad_jax.report.page import render_page
from edad_jax.report.svg import inline_svg
from edad_jax.runtime.page import read_style
from tests.tiny_story import SOME, make_lines, make_story

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects tags, and asserts that each is closed in its turn."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    """Returns a reader that has read a page to its end."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def html():
    return render_page(make_story(), make_lines())


@pytest.fixture(scope="module")
def page(html):
    return read(html)


def test_the_page_fetches_nothing_and_runs_nothing(html, page):
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base"}
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action"):
                assert value.startswith("#"), (tag, name, value)
            assert not name.startswith("on")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert style == read_style()  # that of the serving page, too
    assert "@import" not in style and "url(" not in style
    assert "default-src 'none'" in next(a["content"] for t, a in page.tags if "http-equiv" in a)


def test_every_name_is_there_once_and_every_reference_leads_somewhere(html, page):
    names = [a["id"] for _, a in page.tags if "id" in a]
    assert len(names) == len(set(names))
    wanted = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)
    wanted += re.findall(r'aria-labelledby="()([^"]+)"', html)
    assert {one or other for one, other in wanted} <= set(names)


def test_figures_are_told_in_words_and_follow_light_and_dark(html, page):
    labels = [a["aria-label"] for t, a in page.tags if t == "svg"]
    assert all(a["role"] == "img" for t, a in page.tags if t == "svg")
    assert any("Entity F1: base model" in label and "int8" in label for label in labels)
    assert any("Held-out text: masked words found" in label for label in labels)
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    used = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", drawings))
    assert all(each == "none" or each.startswith(("var(--", "url(#")) for each in used), used
    defined = re.findall(r"--([a-z]+):", html.partition("@media (prefers-color-scheme: dark)")[2])
    assert {each[6:-1] for each in used if each.startswith("var")} <= set(defined)


def test_it_can_be_read_on_a_telephone_and_by_keyboard(html, page):
    meta = {a.get("name"): a.get("content") for t, a in page.tags if t == "meta"}
    assert meta["viewport"] == "width=device-width, initial-scale=1"
    assert meta["color-scheme"] == "light dark"
    scrolled = [a for _, a in page.tags if a.get("class") == "scroll"]
    assert scrolled and all(a["tabindex"] == "0" and a["aria-label"] for a in scrolled)
    rows = html.count("<tr>") - html.count("<thead>")
    assert rows == html.count('<th scope="row"')  # what a row is about stays when it is scrolled
    links = [a["href"] for t, a in page.tags if t == "a"]
    assert links[0] == "#main"  # past the navigation
    headings = [t for t, _ in page.tags if re.fullmatch("h[1-6]", t)]
    assert headings[0] == "h1" and headings.count("h1") == 1
    assert "<html lang=" in html


def test_entities_are_marked_in_words_and_not_by_colour_alone(html):
    for words in ("[found: Gene]", "[missed: Disease; said: breast (Disease)]", "[not there: Gene"):
        assert words in html


def test_a_guess_is_called_right_or_wrong(html):
    assert "hidden word: <strong>small</strong>; teacher: <strong>big</strong> (wrong)" in html
    assert "student: <strong>&lt;s&gt;</strong> (wrong)" in html
    gap = {"text": "a ___ gap", "word": "small", "student": "small"}
    assert "student: <strong>small</strong> (right)" in render_page(make_story(gaps=[gap]), [])


def test_what_words_mean_is_told_of_those_that_the_page_has_and_of_no_other(html, page):
    glossary = re.search(r"<details><summary>Words on this page.*?</details>", html)[0]
    rest = html.replace(glossary, "").lower()
    assert [word for word in WORDS if word.lower() not in rest] == []
    text = "".join(page.text)
    assert all(word in text and meaning in text for word, meaning in WORDS.items())


def test_what_a_text_holds_is_shown_and_not_taken_for_html(html):
    assert "&lt;b&gt;" in html and "<b>" not in html
    assert "python &lt;train&gt;" in html


def test_labels_by_rule_are_told(html):
    assert "made by rule" not in html
    told = render_page(make_story(labels_by_rule=["numpy"]), [])
    assert "The labels are made by rule" in told and "No person has labelled" in told


def test_every_setting_stands_there(page):
    text = "".join(page.text)
    for key, value in make_story()["settings"].items():
        assert key in text and value in text


def test_less_than_98_percent_agreement_is_told_with_what_to_do(html):
    assert "That is under 98%" in html and "--calibrate" in html
    agreed = render_page(make_story(agreement={"student": 1.0, "int8": 0.99}), [])
    assert "That is under 98%" not in agreed


def test_a_chain_without_timing_and_gaps_has_a_page_too():
    page = read(render_page(make_story(speed={}, gaps=[]), []))
    assert "None were asked for" in "".join(page.text)


def test_a_sentence_that_overlaps_in_two_ways_is_shown_once():
    words, gold = [["a", "b", "c", "d"]], [["B-X", "I-X", "O", "O"]]
    shown = show_entities(Tagged(words, gold, [["O", "B-X", "I-X", "B-Y"]]), 1)
    assert shown["right"] == []
    assert shown["wrong"][0]["parts"] == [
        {"text": "a b", "kind": "missed", "type": "X", "said": "b c (X)"},
        {"text": "c", "kind": "", "type": "", "said": ""},
        {"text": "d", "kind": "wrong", "type": "Y", "said": ""},
    ]
    assert show_entities(SOME, 0) == {"right": [], "wrong": []}


def test_the_ids_of_two_figures_differ():
    from edad_jax.report.story_figures import bars_figure

    drawn = [inline_svg(bars_figure("t", {"int8": 1.0}, "MB")[1], name, "x") for name in "ab"]
    ids = [set(re.findall(r'\bid="([^"]+)"', each)) for each in drawn]
    assert ids[0] and ids[0].isdisjoint(ids[1])
