# SPDX-License-Identifier: Apache-2.0
"""The page that the server shows, and the style that all pages of the project carry.

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
    policy = "; ".join(
        (
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            f"script-src 'sha256-{digest}'",  # this script, and none that comes with a text
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    page = _read("page.html").replace("POLICY", html.escape(policy, quote=False), 1)
    return page.replace("STYLE", read_style(), 1).replace("SCRIPT", script, 1)


def _read(name: str) -> str:
    return (importlib.resources.files("edad_jax.runtime") / "static" / name).read_text("utf-8")
