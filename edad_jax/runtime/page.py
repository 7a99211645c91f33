# SPDX-License-Identifier: Apache-2.0
"""The pages that the server shows, and the style that all pages of the project carry.

A page is one text: its style and its script stand within it, and its policy forbids a browser to
fetch anything but answers of the server that it came from.
"""

import base64
import hashlib
import html
import importlib.resources
import json
from collections.abc import Iterator, Mapping
from typing import Any


def read_style() -> str:
    """Returns the style sheet of all pages, to stand in a <style> element."""
    return _read("style.css")


def make_page() -> str:
    """Returns the page to paste text into, as HTML."""
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # This script, and none that comes with a text.
    policy = _policy(f"script-src 'sha256-{digest}'", "connect-src 'self'")
    page = _read("page.html").replace("POLICY", policy, 1)
    return page.replace("STYLE", read_style(), 1).replace("SCRIPT", script, 1)


def make_interface_page(interface: Mapping[str, Any]) -> str:
    """Returns routes, fields and answers as HTML without a script.

    Args:
      interface: what openapi.json says.
    """
    schemas = interface.get("components", {}).get("schemas", {})
    routes = "".join(
        f"<section><h2><code>{_safe(f'{method.upper()} {path}')}</code></h2>"
        f"<p>{_safe(route.get('description', ''))}</p>{''.join(_parts(route, schemas))}</section>\n"
        for path, methods in interface["paths"].items()
        for method, route in methods.items()
    )
    page = _read("interface.html").replace("POLICY", _policy(), 1)
    return page.replace("STYLE", read_style(), 1).replace("ROUTES", routes, 1)


def _parts(route: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a route reads and what it answers, as far as these have names."""
    if body := route.get("requestBody"):
        named = _named(body)
        yield _table(f"Body: {named}, in JSON", schemas[named])
        for name in sorted(_references(schemas[named])):
            yield _table(name, schemas[name])
        fields = schemas[named]["properties"].items()
        examples = [{name: each["examples"][0]} for name, each in fields if "examples" in each]
        yield from (f"<pre>{_safe(json.dumps(each))}</pre>" for each in examples)
    for status, answer in route["responses"].items():
        if named := _named(answer):
            yield _table(f"Answer, {status}: {named}", schemas[named])


def _table(caption, schema):
    rows = "".join(
        f'<tr><th scope="row"><code>{_safe(name)}</code></th><td>{_safe(_kind(field))}</td>'
        f"<td>{_safe(field.get('description', ''))}</td></tr>"
        for name, field in schema["properties"].items()
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("field", "kind", "what"))
    return (
        f'<div class="scroll"><table><caption><span>{_safe(caption)}</span></caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _named(content):
    """Returns the name of the schema of a body or an answer; "" where it has none."""
    schema = content.get("content", {}).get("application/json", {}).get("schema", {})
    return schema.get("$ref", "").rpartition("/")[2]


def _references(schema):
    """Returns the names of the schemas that a schema's fields are made of."""
    items = (field.get("items", {}) for field in schema["properties"].values())
    return {each["$ref"].rpartition("/")[2] for each in items if "$ref" in each}


def _kind(field):
    """Returns the type of a field in words."""
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    if "enum" in field:
        return " or ".join(map(json.dumps, field["enum"]))
    if "prefixItems" in field:
        return f"({', '.join(map(_kind, field['prefixItems']))})"
    kind = field.get("type", "")
    return f"list of {_kind(field['items'])}" if kind == "array" and field.get("items") else kind


def _policy(*parts: str) -> str:
    """Returns what a browser may do with a page, to stand in an attribute."""
    first, last = ("default-src 'none'", "style-src 'unsafe-inline'"), ("base-uri", "form-action")
    rules = "; ".join((*first, *parts, *(f"{each} 'none'" for each in last)))
    return html.escape(rules, quote=False)


def _safe(text: str) -> str:
    return html.escape(str(text))


def _read(name: str) -> str:
    return (importlib.resources.files("edad_jax.runtime") / "static" / name).read_text("utf-8")
