# SPDX-License-Identifier: Apache-2.0
"""Writes the pages of the reference that say what the code says: configuration and commands.

    python docs/generate.py            # after a change of configs/, of a flag, or of a method
    python docs/generate.py --check    # fails where a page is not what the code says

The pages lie in the repository, to be read without building the site; a test compares.
Keys and defaults are those of `get_config()`, meanings the comments beside them, and what each
method reads is what `edad_jax/distillation` says of it.
"""

import argparse
import ast
import contextlib
import importlib
import io
import os
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
TASKS = {"ner": "tagging", "classify": "classification", "squad": "answering"}
HEADER = "<!-- SPDX-License-Identifier: Apache-2.0; written by docs/generate.py, not by hand -->\n"
OTHER_SCRIPTS = (
    "benchmarks/answer_bounds.py",
    "benchmarks/film_ratings.py",
    "benchmarks/prepare_rows.py",
    "benchmarks/torch_finetune.py",
    "benchmarks/torch_step.py",
)


def flat(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any, type]]:
    """Yields (dotted key, value, type) of every key that is not a section."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value, config.get_type(key)


def read_comments(path: Path) -> dict[str, str]:
    """Returns {dotted key: comment} of the assignments in a configuration's file.

    A comment belongs to the statement that it stands beside; above it, if there is none beside.
    """
    source = path.read_text(encoding="utf-8")
    comments = {
        token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
            continue
        key = ast.unparse(node.targets[0]).removeprefix("config.")
        beside = [
            comments[line][0]
            for line in range(node.lineno, node.end_lineno + 1)
            if line in comments and not comments[line][1]
        ]
        above, line = [], node.lineno - 1
        while line in comments and comments[line][1]:
            above.insert(0, comments[line][0])
            line -= 1
        found[key] = " ".join(beside or above)
    return found


def read_config(name: str) -> ConfigDict:
    """Returns configs/NAME.py's configuration, wherever the quick start's teacher is, or is not."""
    quickstart = importlib.import_module("configs.quickstart")
    found = quickstart._find_teacher
    quickstart._find_teacher = lambda: "of the package " + quickstart.PACKAGE
    try:
        return importlib.import_module(f"configs.{name}").get_config()
    finally:
        quickstart._find_teacher = found


def method_defaults() -> dict[str, dict[str, Any]]:
    """Returns {key: {method: value where the key was left at None}}; of methods that read it."""
    from edad_jax.distillation.methods import METHODS
    from edad_jax.distillation.settings import read_settings, resolve_config

    defaults = {}
    for name, method in METHODS.items():
        config = read_config("edad")
        config.method = name
        config.student.init = "teacher"  # else config.student.inherit is not read
        if name == "minilm":
            config.student.extension.hidden_size = 0
        resolved = resolve_config(config, read_settings(config))
        for key, value, _ in flat(resolved):
            if key.split(".")[0] in method.options or key.startswith("student.inherit."):
                defaults.setdefault(key, {})[name] = value
    return defaults


def shown(value: Any) -> str:
    """Returns a value as it is typed on the command line, in code."""
    if value == "" or value is None:
        return "none"
    return f"`{value!r}`" if isinstance(value, tuple) else f"`{value}`"


def escaped(text: str) -> str:
    """Returns text that ends no cell of a table, and is no HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def config_rows(
    config: ConfigDict,
    comments: Mapping[str, str],
    defaults: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, list[str]]]:
    """Yields (section, row of the table) of every key."""
    from edad_jax.distillation.methods import METHODS

    for key, value, kind in flat(config):
        readers = "all"
        default = shown(value)
        if key in defaults:
            of_methods = defaults[key]
            readers = ", ".join(of_methods) if len(of_methods) < len(METHODS) else "all"
            if value is None and len(set(map(str, of_methods.values()))) == 1:
                default = f"none: {shown(next(iter(of_methods.values())))}"
        if key.startswith("student.inherit."):
            readers += ", with `student.init=teacher`"
        section = key.split(".")[0] if "." in key else ""
        row = [f"`{key}`", kind.__name__, default, readers, escaped(comments.get(key, ""))]
        yield section, row


def configuration_page() -> str:
    """Returns the page of every key of every configuration."""
    config, comments = read_config("edad"), read_comments(ROOT / "configs" / "edad.py")
    sections = {}
    for section, row in config_rows(config, comments, method_defaults()):
        sections.setdefault(section, []).append(row)
    parts = [
        HEADER,
        "# Configuration\n",
        "Every key of `launch/train.py` and `launch/prepare.py`, with the value that it has in "
        "[configs/edad.py](../../configs/edad.py), the paper's run. Give another on the command "
        "line: `--config.KEY=VALUE`. A key that does not exist is an error that names the nearest "
        "one. A key that the chosen method does not read is an error too.\n",
        '"none: X" means that nothing is set, and that methods that read the key take X.\n',
    ]
    columns = ["key", "type", "default", "read by methods", "meaning"]
    for section in dict.fromkeys(["", *sections]):
        if section:
            about = comments.get(section, "")
            parts.append(
                f"## {section}\n" + (f"\n{about[0].upper()}{about[1:]}.\n" if about else "")
            )
        else:
            parts.append("## The run\n")
        parts.append(table(columns, sections[section]))

    tuning, comments = read_config("ner"), read_comments(ROOT / "configs" / "ner.py")
    own = read_comments(ROOT / "configs" / "squad.py")
    comments |= {key: text for key, text in own.items() if text}
    keys = {name: dict((key, value) for key, value, _ in flat(read_config(name))) for name in TASKS}
    kinds = {key: kind for name in TASKS for key, _, kind in flat(read_config(name))}
    rows = []
    for key, kind in kinds.items():
        values = {TASKS[name]: keys[name][key] for name in TASKS if key in keys[name]}
        same = len({str(value) for value in values.values()}) == 1
        default = (
            shown(next(iter(values.values())))
            if same
            else ", ".join(f"{task} {shown(value)}" for task, value in values.items())
        )
        readers = "all" if len(values) == len(TASKS) else ", ".join(values)
        rows.append([f"`{key}`", kind.__name__, default, readers, escaped(comments.get(key, ""))])
    parts += [
        "## Fine-tuning\n",
        "Keys of `launch/finetune.py`: [configs/ner.py](../../configs/ner.py) (tagging), "
        "configs/classify.py (classification) and configs/squad.py (answering).\n",
        table(["key", "type", "default", "tasks", "meaning"], rows),
        "## What the other configurations change\n",
        "Against configs/edad.py, or configs/ner.py for fine-tuning.\n",
    ]
    for path in sorted((ROOT / "configs").glob("*.py")):
        if path.stem in ("edad", "ner", "__init__"):
            continue
        own = read_config(path.stem)
        base = tuning if "task" in own else config
        before = {key: value for key, value, _ in flat(base)}
        if "finetune" in own:  # of a chain, whose stages have the defaults of configs/ner.py
            before |= {f"finetune.{key}": value for key, value, _ in flat(tuning)}
        changes = [
            f"{key}={value}"
            for key, value, _ in flat(own)
            if str(before.get(key, "")) != str(value)
        ]
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
        name = f"configs/{path.name}"
        parts.append(f"### {path.name}\n\n[{name}](../../{name}): {about}\n")
        if changes:
            parts.append("```text\n" + "\n".join(changes) + "\n```\n")
    return "\n".join(parts)


def read_flags(path: Path) -> dict[str, tuple[str, str, str]]:
    """Returns {flag: (type, default, help)} of a script of absl flags, without running it."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not node.func.attr.startswith("DEFINE_"):
            continue
        kind = node.func.attr.removeprefix("DEFINE_").replace("_", " ")
        keywords = {each.arg: each.value for each in node.keywords}
        values = [*node.args]
        name = ast.literal_eval(values[0])
        default = _literal(values[1] if len(values) > 1 else keywords.get("default"))
        if kind == "enum":
            choices = _literal(values[2] if len(values) > 2 else keywords["enum_values"])
            kind = escaped(" | ".join(choices)) if isinstance(choices, list) else "one of a list"
            help_node = values[3] if len(values) > 3 else keywords.get("help")
        else:
            help_node = values[2] if len(values) > 2 else keywords.get("help_string")
        found[name] = (kind, default, str(_literal(help_node) or ""))
    return found


def _literal(node: ast.AST | None) -> Any:
    """Returns a node's value, or its source where it is computed."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def scripts() -> list[Path]:
    """Returns the scripts that the page of commands describes."""
    first = sorted((ROOT / "launch").glob("*.py"))
    return first + [ROOT / name for name in OTHER_SCRIPTS]


def commands_page() -> str:
    """Returns the page of every command."""
    parts = [
        HEADER,
        "# Commands\n",
        "What each command does, and its flags. `--help` says the same. Commands with `--config` "
        "also take `--config.KEY=VALUE` for every key of [the configuration](configuration.md).\n",
    ]
    for path in scripts():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        rows = [
            [
                f"`--{name}`",
                kind,
                "none" if default in (None, "") else f"`{default}`",
                escaped(help_),
            ]
            for name, (kind, default, help_) in read_flags(path).items()
        ]
        parts.append(f"## {path.relative_to(ROOT)}\n\n```text\n{text}\n```\n")
        if rows:
            parts.append(table(["flag", "type", "default", "meaning"], rows))
    parts.append(f"## python -m edad_jax.runtime\n\n```text\n{runtime_help()}```\n")
    return "\n".join(parts)


def runtime_help() -> str:
    """Returns what `python -m edad_jax.runtime --help` prints."""
    from edad_jax.runtime.__main__ import main

    text, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "88"
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main(["--help"])
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())


PAGES = {"configuration.md": configuration_page, "commands.md": commands_page}


def main() -> None:
    """Writes the pages, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is old")
    check = parser.parse_args().check
    for name, make in PAGES.items():
        path, text = REFERENCE / name, make()
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            sys.exit(
                f"docs/reference/{name} is not what the code says; run python docs/generate.py"
            )
        if not check:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
