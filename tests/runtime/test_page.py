# SPDX-License-Identifier: Apache-2.0
"""The serving page and the style of all pages: what can be told without a browser.

Contrasts are those of WCAG 2.2: 4.5 to 1 for text (1.4.3, AA), 3 to 1 for what one has to see
otherwise (1.4.11).
"""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from edad_jax.runtime.interface import make_interface_page
from edad_jax.runtime.page import make_page, read_style

COLOURS = ("blue", "vermilion", "green", "purple", "ochre", "grey")
# Letters, and what they stand on: on the page and in boxes, on a button, on marks, in figures.
TEXT = [
    *((ink, ground) for ink in ("ink", "soft", "link", "error") for ground in ("paper", "panel")),
    ("on-action", "action"),
    *(("ink", f"{colour}-tint") for colour in COLOURS),
    *((colour, "paper") for colour in COLOURS),
]
# Borders of fields and buttons, the ring of what has the focus, bars, the line below a mark.
SEEN = [
    *((edge, ground) for edge in ("edge", "action", "error") for ground in ("paper", "panel")),
    *((colour, ground) for colour in COLOURS for ground in ("paper", "panel")),
]


def palettes():
    """Returns the colours by name, in light and in dark."""
    blocks = re.findall(r":root \{(.*?)\}", read_style(), re.DOTALL)
    return dict(zip(("light", "dark"), map(_colours, blocks), strict=True))


def _colours(block):
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", block))


def luminance(colour):
    """Returns WCAG's relative luminance of #rrggbb."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """Returns WCAG's ratio of two colours, from 1 to 21."""
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_and_edges_are_told_from_their_ground(scheme):
    colours = palettes()[scheme]
    weak = [
        f"{front} on {ground}: {ratio:.2f}, expected {least}"
        for pairs, least in ((TEXT, 4.5), (SEEN, 3.0))
        for front, ground in pairs
        if (ratio := contrast(colours[front], colours[ground])) < least
    ]
    assert not weak


def test_every_colour_has_a_name_in_light_and_in_dark_and_stands_nowhere_else():
    style = read_style()
    light, dark = palettes().values()
    used = set(re.findall(r"var\(--([a-z-]+)\)", style)) | {"grid"}  # which figures have
    assert light.keys() == dark.keys() == used
    rules = re.sub(r":root \{.*?\}", "", style, flags=re.DOTALL)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b|rgb|hsl|: *(?:white|black)\b", rules)


class Page(HTMLParser):
    """Collects tags with their attributes, and the text of labels by what they are for."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def page():
    parsed = Page(make_page())
    assert not parsed.open
    return parsed


def test_every_field_has_a_label_and_every_reference_leads_somewhere(page):
    labelled = {each["for"] for each in page.of("label")}
    fields = {each["id"] for each in page.of("textarea", "input", "select")}
    assert labelled == fields and len(page.of("label")) == len(fields) == 3
    ids = [each["id"] for _, each in page.tags if "id" in each]
    told = [each[name] for _, each in page.tags for name in each if name == "aria-describedby"]
    script = make_page().partition("<script>")[2]
    assert len(ids) == len(set(ids)) and {*told, *re.findall(r'byId\("(.*?)"\)', script)} <= {*ids}


def test_it_has_a_language_a_viewport_landmarks_and_no_order_of_its_own(page):
    assert page.of("html") == [{"lang": "en"}]
    named = {each.get("name"): each.get("content") for each in page.of("meta")}
    assert named["viewport"] == "width=device-width, initial-scale=1"  # and may be zoomed
    assert named["color-scheme"] == "light dark"
    for landmark in ("header", "main", "footer", "h1", "title"):
        assert len(page.of(landmark)) == 1, landmark
    assert not [each for _, each in page.tags if "tabindex" in each or "autofocus" in each]
    assert {"status", "alert"} <= {each.get("role") for _, each in page.tags}


def test_it_fetches_from_its_own_server_alone_and_runs_its_own_script_alone(page):
    html = make_page()
    assert not re.search(r"https?://|//[a-z]|@import|url\(", html.replace("// ", ""))
    script = re.search("<script>(.*)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(each["content"] for each in page.of("meta") if "http-equiv" in each)
    assert dict(part.split(" ", 1) for part in policy.split("; ")) == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not [each for tag, each in page.tags if "src" in each or tag in ("link", "iframe")]
    links = {each["href"] for each in page.of("a")}
    assert links == {"docs", "openapi.json"}  # relative: behind a proxy
    assert not [name for _, each in page.tags for name in each if name.startswith("on")]


def test_it_carries_the_style_of_all_pages():
    assert f"<style>{read_style()}</style>" in make_page()


INTERFACE = {
    "paths": {
        "/v1/read": {
            "post": {
                "description": "Reads <all> of it.",
                "requestBody": {
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Body"}}
                    }
                },
                "responses": {"200": {"content": {"application/json": {"schema": {}}}}},
            }
        }
    },
    "components": {
        "schemas": {
            "Body": {
                "properties": {
                    "asked": {"type": "array", "items": {"$ref": "#/components/schemas/Asked"}},
                    "pairs": {"type": "array", "items": {"prefixItems": [{"type": "string"}] * 2}},
                    "model": {"type": "string", "enum": ["one", "two"], "examples": ["one"]},
                }
            },
            "Asked": {"properties": {"question": {"type": "string", "description": "Who?"}}},
        }
    },
}


def test_the_interface_is_told_without_scripts_and_without_the_internet():
    html = make_interface_page(INTERFACE)
    page = Page(html)
    assert not page.open and not page.of("script", "link", "img", "iframe")
    assert {each["href"] for each in page.of("a")} == {"openapi.json", "./", "metrics"}
    assert "default-src 'none'" in html and "script-src" not in html
    for words in (
        "<code>POST /v1/read</code>",
        "Reads &lt;all&gt; of it.",
        "<td>list of Asked</td>",
        "<td>list of (string, string)</td>",
        "<td>&quot;one&quot; or &quot;two&quot;</td>",
        "<td>string</td><td>Who?</td>",
        "<pre>{&quot;model&quot;: &quot;one&quot;}</pre>",
    ):
        assert words in html
