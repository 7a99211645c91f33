# SPDX-License-Identifier: Apache-2.0
r"""Tagged sentences made by rule from docstrings: parameters, types and functions as entities.

    python -m chain.docstring_labels --packages=numpy,scipy --out labels

No person has labelled or checked them. The rule: authors of scientific Python mark names in their
docstrings (`x`, ``axis``, :func:`numpy.sum`), and name parameters with their types in lines of the
form "x : array_like, optional". The marks are taken away, and what was marked is an entity: a
PARAMETER if the function has one of that name, a FUNCTION if one of the packages defines it or it
is written with brackets, a TYPE if it is a class of theirs or a usual word for one. Only sentences
with an entity are kept, since in others names may stand unmarked. A file's sentences are all in
one split, so that no test sentence describes a function that was learned from.
"""

import ast
import hashlib
import inspect
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from edad_jax.command import run_command

PACKAGES = flags.DEFINE_list("packages", None, "Installed packages, as one would import them.")
OUT = flags.DEFINE_string("out", None, "Folder to write train.tsv, validation.tsv and test.tsv to.")
SENTENCES = flags.DEFINE_integer("sentences", 0, "At most, drawn at random; 0: all.")
SEED = flags.DEFINE_integer("seed", 0, "Of the drawing.")

_SHARES = {"test": range(0, 2), "validation": range(2, 3), "train": range(3, 10)}  # tenths of files
_WORDS_OF_A_SENTENCE = range(5, 41)
_TYPES = frozenset(
    "int float complex bool str bytes list tuple dict set object callable ndarray array array_like "
    "dtype scalar sequence iterable slice iterator generator DataFrame Series Index".split()
)
_MARKED = re.compile(r":[a-z:]+:`~?\.?([^`<]+?)(?:\s*<[^`>]*>)?`|``([^`]+)``|`([^`]+)`")
_PARAMETER = re.compile(r"^\*{0,2}(\w+(?:, \*{0,2}\w+)*) ?: (\S.*)$")
_RULE = re.compile(r"[-=~^*+|_.\s]{3,}")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*(\(\))?")
_TOKEN = re.compile(r"\x02[^\x03]*\x03|\w+(?:[-.'/]\w+)*|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\x02])")


class Names(NamedTuple):
    """What packages define."""

    functions: frozenset[str]
    classes: frozenset[str]


class Sentence(NamedTuple):
    """Words with a tag each, and the split that its file belongs to."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    split: str


def make_labels(packages: Sequence[str], *, most: int = 0, seed: int = 0) -> list[Sentence]:
    """Returns tagged sentences of installed packages, none twice, in the order of their text.

    Args:
      packages: names as one would import them.
      most: how many are drawn; 0: all there are.
      seed: of the drawing.

    Raises:
      ValueError: a package that is not installed.
    """
    from edad_jax.data.text.docstrings import list_source_files

    functions: set[str] = set()
    classes: set[str] = set()
    docstrings = []  # (split, text, parameters); trees would take a gigabyte
    for package in packages:
        for number, path in enumerate(list_source_files(package)):
            split = _split_of(f"{package}/{path.name}/{number}")
            for node in _definitions(path):
                (classes if isinstance(node, ast.ClassDef) else functions).add(node.name)
                if text := ast.get_docstring(node):
                    docstrings.append((split, text, _parameters(node)))
    names = Names(frozenset(functions), frozenset(classes))
    found: dict[tuple[str, ...], Sentence] = {}
    for split, text, parameters in docstrings:
        for words, tags in tag_docstring(text, parameters, names):
            found.setdefault(words, Sentence(words, tags, split))
    sentences = list(found.values())
    if 0 < most < len(sentences):
        chosen = np.random.default_rng(seed).choice(len(sentences), most, replace=False)
        sentences = [sentences[number] for number in sorted(chosen)]
    return sentences


def _definitions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Returns a file's functions and classes; none of one that cannot be parsed, as in a corpus."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's escape sequences
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def _split_of(place: str) -> str:
    """Returns the split of a file, the same on every machine."""
    tenth = int(hashlib.sha256(place.encode()).hexdigest(), 16) % 10
    return next(name for name, tenths in _SHARES.items() if tenth in tenths)


def _parameters(node: ast.AST) -> frozenset[str]:
    """Returns the names of a function's parameters, or of a class's constructor's."""
    if isinstance(node, ast.ClassDef):
        made = [each for each in node.body if getattr(each, "name", "") == "__init__"]
        return _parameters(made[0]) if made else frozenset()
    given = node.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return frozenset(each.arg for each in every if each) - {"self", "cls"}


def tag_docstring(
    text: str, parameters: frozenset[str], names: Names
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yields (words, IOB2 tags) of the sentences of a docstring that have an entity.

    Args:
      text: the docstring.
      parameters: of its function.
      names: that the packages define.

    Example:
      >>> names = Names(frozenset({"sum"}), frozenset())
      >>> next(tag_docstring("Add over `axis` as sum does.", frozenset({"axis"}), names))[1]
      ('O', 'O', 'B-PARAMETER', 'O', 'O', 'O', 'O')
    """
    for paragraph in _paragraphs(text, parameters):
        for sentence in _SENTENCE_END.split(paragraph):
            words, tags = _tag(sentence, parameters, names)
            if len(words) in _WORDS_OF_A_SENTENCE and any(tag != "O" for tag in tags):
                yield tuple(words), tuple(tags)


def _paragraphs(text: str, parameters: frozenset[str]) -> Iterator[str]:
    """Yields paragraphs of prose in which each marked name stands between two control letters.

    The line that names a parameter and its type is joined to what is said of it.
    """
    lines: list[str] = []
    for raw in [*inspect.cleandoc(text).split("\n"), ""]:
        line = raw.strip()
        header = _PARAMETER.match(line)
        is_header = header and {each.strip(" *") for each in header[1].split(",")} & parameters
        if is_header or not line or _RULE.fullmatch(line) or line.startswith((">>>", "...", "..")):
            if lines:
                yield " ".join(lines)
            lines = []
        if is_header:
            named = ", ".join(f"\x02{each.strip(' *')}\x03" for each in header[1].split(","))
            kind = re.sub(r"[`']", "", header[2])
            words = re.sub(r"\w+(?:\.\w+)*", lambda each: f"\x02{each[0]}\x03", kind)
            lines.append(f"{named} : {words}")
        elif line and not _RULE.fullmatch(line) and not line.startswith((">>>", "...", "..")):
            lines.append(_MARKED.sub(lambda each: f"\x02{each[1] or each[2] or each[3]}\x03", line))


def _tag(sentence: str, parameters: frozenset[str], names: Names) -> tuple[list[str], list[str]]:
    words, tags = [], []
    for token in _TOKEN.findall(sentence):
        if not token.startswith("\x02"):
            words.append(token)
            tags.append("O")
            continue
        marked = token[1:-1].strip()
        kind = _kind(marked, parameters, names) if _NAME.fullmatch(marked) else "O"
        inside = [marked.removesuffix("()")] if kind != "O" else _TOKEN.findall(marked)
        words += inside
        tags += [kind] * len(inside)
    return words, tags


def _kind(name: str, parameters: frozenset[str], names: Names) -> str:
    """Returns the tag of a marked name."""
    last = name.removesuffix("()").rpartition(".")[2]
    if name in parameters:
        return "B-PARAMETER"
    if name.endswith("()") or (last in names.functions and last not in _TYPES):
        return "B-FUNCTION"
    if last in _TYPES or last in names.classes:
        return "B-TYPE"
    return "O"


def write_labels(sentences: Sequence[Sentence], folder: Path) -> dict[str, int]:
    """Returns how many sentences each split has, which are in the folder's files by then.

    Raises:
      ValueError: a split has none.
    """
    from edad_jax.files import write_file

    counts = {}
    for split in ("test", "validation", "train"):  # the last file says that all are there
        mine = [each for each in sentences if each.split == split]
        if not mine:
            raise ValueError(
                f"got no sentence for the {split} split, expected some; give more --packages or "
                "more --sentences"
            )
        blocks = (
            "\n".join(f"{word}\t{tag}" for word, tag in zip(each.words, each.tags, strict=True))
            for each in mine
        )
        write_file(folder / f"{split}.tsv", ("\n\n".join(blocks) + "\n").encode())
        counts[split] = len(mine)
    return counts


def main():
    """Writes the files and says how many sentences they have."""
    sentences = make_labels(PACKAGES.value, most=SENTENCES.value, seed=SEED.value)
    for split, count in write_labels(sentences, Path(OUT.value)).items():
        print(f"{split}: {count:,} sentences")


if __name__ == "__main__":
    run_command(main, required=["packages", "out"])
