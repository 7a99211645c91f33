# SPDX-License-Identifier: Apache-2.0
"""The page that the server shows, and what all its pages and those of reports have in common.

A page is one text: its style and its script stand within it, and its policy forbids a browser to
fetch anything but answers of the server that it came from.
"""

import base64
import hashlib
import html
import importlib.resources


def read_style() -> str:
    """Returns the style sheet of all pages, to stand in a <style> element."""
    return _read("style.css")


def make_page() -> str:
    """Returns the page to paste text into, as HTML."""
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # This script, and none that comes with a text.
    page = read_page("page.html", f"script-src 'sha256-{digest}'", "connect-src 'self'")
    return page.replace("SCRIPT", script, 1)


def read_page(name: str, *policy: str) -> str:
    """Returns a page's HTML with its style, and with what a browser may do with it.

    Args:
      name: of its file, which begins after what all pages begin with.
      policy: parts of a content security policy, beside those of all pages.
    """
    page = (_read("head.html") + _read(name)).replace("POLICY", _policy(*policy), 1)
    return page.replace("STYLE", read_style(), 1)


def _policy(*parts: str) -> str:
    """Returns what a browser may do with a page, to stand in an attribute."""
    first, last = ("default-src 'none'", "style-src 'unsafe-inline'"), ("base-uri", "form-action")
    rules = "; ".join((*first, *parts, *(f"{each} 'none'" for each in last)))
    return html.escape(rules, quote=False)


def _read(name: str) -> str:
    return (importlib.resources.files("edad_jax.runtime") / "static" / name).read_text("utf-8")
