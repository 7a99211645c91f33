# SPDX-License-Identifier: Apache-2.0
"""The page of the server's interface: openapi.json for people, without scripts or internet."""

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

from edad_jax.runtime.page import read_page


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
    return read_page("interface.html").replace("ROUTES", routes, 1)


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


def _safe(text):
    return html.escape(str(text))
