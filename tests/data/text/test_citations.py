# SPDX-License-Identifier: Apache-2.0
"""Lines of articles without the numbers of their references."""

import time

import pytest

from edad_jax.data.text.articles import read_articles
from edad_jax.data.text.reading import ReadReport

C = '<xref ref-type="bibr" rid="r1">1</xref>'
NAMED = '<xref ref-type="bibr" rid="r1">Smith et al., 2001</xref>'


def line_of(paragraph):
    article = f"<article><body><p>{paragraph}</p></body></article>".encode()
    report = ReadReport()
    (text,) = read_articles([article], "a.nxml", report)
    assert not report.problems
    return text


@pytest.mark.parametrize(
    ("paragraph", "line"),
    [
        (f"Cells<sup>{C},{C}</sup>. Next.", "Cells. Next."),
        (f"Cells<sup>{C}–{C}</sup>.", "Cells."),
        (f"Cells<sup>{C}–3,7</sup> grow.", "Cells grow."),
        (f"Cells<sup>1–{C}</sup> grow.", "Cells grow."),
        (f"Cells [{C}–{C}, {C}].", "Cells."),
        (f"Cells [{C}‐{C}] and [{C}−{C}].", "Cells."),
        (f"Cells [{C}–5] grow.", "Cells grow."),
        (f"Cells ({C} and {C}).", "Cells."),
        (f"Cells (see {C}; {C}).", "Cells."),
        (f"Cells (e.g., {C}, {C}) grow.", "Cells grow."),
        (f"Cells (reviewed in {C}) grow.", "Cells grow."),
        (f"Cells<sup>[{C}]</sup>.", "Cells."),
        (f"Cells (Smith et al., {C}).", "Cells (Smith et al.)."),
        (f"Cells ({NAMED}; {NAMED}) grow.", "Cells grow."),
        (f"Cells.<sup>{C}, {C}, {C}</sup> Then.", "Cells. Then."),
        (f"Cells {C}, {C}.", "Cells."),
        (f"Cells {C}, {C}, {C}, and mice {C} grow {C}.", "Cells, and mice grow."),
        (f"Cells <sup>{C}</sup><sup>,</sup><sup>{C}</sup>.", "Cells."),
        (f"As in refs. {C} and {C}.", "As in refs."),
        (f"Cells [{C}]–[{C}].", "Cells."),
        (f"R<sup>{C}-{C}</sup>; S ({C}).", "R; S."),
        (f"Smith {C} and Jones {C} saw cells.", "Smith and Jones saw cells."),
        (f"Cells (Fig. 1, {C}) and ({C}, Fig. 2).", "Cells (Fig. 1) and (Fig. 2)."),
        (f"Cells, {C}, grow.", "Cells, grow."),
        (f"Cells{C} grow {C} well", "Cells grow well"),
        (f"Cells grow well {C}", "Cells grow well"),
        (f"Cells (12%; {C}) grow.", "Cells (12%) grow."),
        (f"세포［{C}，{C}］는 자란다。", "세포는 자란다。"),
        (f"Cells（{C}、{C}）。", "Cells。"),
        (f"Cells (see [{C}, {C}] for a review).", "Cells."),
        ("So<disp-formula>x</disp-formula>is it: <disp-formula>x</disp-formula>.", "So is it:."),
    ],
)
def test_citations_leave_nothing_behind(paragraph, line):
    assert line_of(paragraph) == line


@pytest.mark.parametrize(
    ("paragraph", "line"),
    [
        ("10<sup>6</sup> cells, H<sub>2</sub>O.", "106 cells, H2O."),
        ("From 1 – 3 , 4 . Then", "From 1 – 3 , 4 . Then"),
        (
            'See <xref ref-type="fig">Fig. 1</xref>, (<xref>Table 1</xref>).',
            "See Fig. 1, (Table 1).",
        ),
        ("A (n = 5) and [sic] (see below).", "A (n = 5) and [sic] (see below)."),
    ],
)
def test_text_without_citations_stays_as_it_is(paragraph, line):
    assert line_of(paragraph) == line


def test_hundred_thousand_citations_take_little_time():
    start = time.monotonic()
    assert line_of(f"Cells ({C} " + f"{C}, " * 100_000 + " mice") == "Cells (mice"
    assert line_of("Cells" + f" w{C}" * 100_000).count("w") == 100_000
    assert time.monotonic() - start < 20
