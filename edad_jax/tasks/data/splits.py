# SPDX-License-Identifier: Apache-2.0
"""The splits of task data: found as files or in a data set, made where there are none.

Task data is small beside a corpus, so whole files are held; and since half a test set gives a
wrong score, a damaged file is an error here, where the readers of `data` keep what they can.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edad_jax.data.text.encodings import recode_blocks
from edad_jax.data.text.hub import is_hub_reachable
from edad_jax.data.text.reading import COMPRESSIONS, ReadReport, read_blocks

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation", "test")
_FILE_NAMES = {
    "train": ("train",),
    "validation": ("devel", "dev", "valid", "validation"),
    "test": ("test",),
}
SPLIT_OF = {name: split for split, names in _FILE_NAMES.items() for name in names}
_SAVED = ("dataset_dict.json", "state.json")  # what datasets' save_to_disk leaves
_HANGUL = re.compile("[가-힣]{2}")  # twice: a single one may be two letters of Windows-1252
_DATASET_FILES = (".parquet", ".arrow", ".json", ".jsonl")


def file_format(path: Path) -> str:
    """Returns the ending of a file name in lower case, less the one of a compression."""
    path = Path(path.name.lower())
    return Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix


def find_files(folder: Path, formats: Sequence[str]) -> dict[str, Path]:
    """Returns {split: file} for the split files that lie in a folder.

    Raises:
      ValueError: two files for one split.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = SPLIT_OF.get(path.name.lower().split(".")[0])
        if split and file_format(path) in formats and path.is_file():
            if path.name.count(".") > 1 + (path.suffix.lower() in COMPRESSIONS):
                continue  # train.old.tsv
            if split in found:
                raise ValueError(
                    f"{folder}: got {found[split].name} and {path.name}, expected one file for "
                    f"{split}; rename or move the other"
                )
            found[split] = path
    return {split: found[split] for split in SPLITS if split in found}


def is_saved_dataset(folder: Path) -> bool:
    """Returns whether a folder is what `save_to_disk` wrote."""
    return any((folder / saved).exists() for saved in _SAVED)


def is_dataset(data: str) -> bool:
    """Returns whether to ask `datasets`: for a folder that it knows to read, or a hub id.

    Raises:
      ValueError: an empty name, or a path at which there is nothing.
    """
    if not data.strip():
        raise ValueError("got no data, expected a file, a folder or a data set; give --config.data")
    path = Path(data).expanduser()
    if path.is_dir():
        return any(
            each.name in _SAVED or each.suffix.lower() in _DATASET_FILES for each in path.rglob("*")
        )
    if not path.exists() and (data.startswith(("/", ".", "~")) or data.count("/") > 1):
        raise ValueError(f"{data}: got no such file or folder; give another --config.data")
    return not path.exists()


def no_train_error(data: str, got: Sequence[str], formats: Sequence[str]) -> ValueError:
    """Returns the error that says what was found instead of training data, and what is sought."""
    names = "; ".join(f"{split}: {' | '.join(_FILE_NAMES[split])}" for split in SPLITS)
    shown = ", ".join(got[:8]) + (", ..." if len(got) > 8 else "")
    return ValueError(
        f"{data}: got {shown or 'nothing'}, expected a training split; name the files ({names}), "
        f"each with one of {', '.join(formats)}, or give a `datasets` data set with these splits"
    )


def load_dataset(data: str, dataset_config: str) -> tuple[dict[str, Dataset], list[str]]:
    """Returns {split: rows} of a data set, and the names of its splits that are not used.

    Args:
      data: a hub id, a folder of data files, or what `save_to_disk` wrote.
      dataset_config: of data sets that have several configurations; "" for none.

    Raises:
      ValueError: it cannot be loaded; says what to give instead.
    """
    import datasets

    path = Path(data).expanduser()
    if not path.exists() and not is_hub_reachable():
        raise ValueError(
            f"the data set {data} is not on this machine and the Hugging Face hub cannot be "
            "reached; give a local file or folder: --config.data=/data/folder"
        )
    name = str(path) if path.exists() else data
    try:
        if is_saved_dataset(path):
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, dataset_config or None)
    except Exception as error:
        raise ValueError(
            f"the data set {data} cannot be loaded ({type(error).__name__}: {error}); give another "
            "one, its --config.dataset_config, or a local folder: --config.data=/data/folder"
        ) from error
    if not isinstance(loaded, datasets.DatasetDict):
        loaded = {"train": loaded}
    splits: dict[str, Dataset] = {}
    unused = []
    for name, rows in loaded.items():
        split = SPLIT_OF.get(name.lower())
        if split is None or split in splits:
            unused.append(name)
        else:
            splits[split] = rows
    return {split: splits[split] for split in SPLITS if split in splits}, unused


def read_whole(path: Path, encoding: str, report: ReadReport) -> bytes:
    """Returns a file's content as UTF-8; what was not UTF-8, and was to be, is left as it is.

    Args:
      path: compressed where its ending says so (`reading.COMPRESSIONS`).
      encoding: of the file; a byte order mark decides over it.
      report: told of characters that the encoding does not have.

    Raises:
      ValueError: the file is damaged or cut short, or there is no such encoding.
    """
    damage = ReadReport()
    with open(path, "rb") as file:
        blocks = read_blocks(file, path.suffix.lower(), str(path), damage)
        try:
            recoded = recode_blocks(blocks, encoding, path.name, report, option="--config.encoding")
            content = b"".join(recoded)
        except LookupError as error:
            raise ValueError(
                f"got --config.encoding={encoding}, expected a name that Python knows, such as "
                "utf-8 or cp949"
            ) from error
    if damage.problems:
        raise ValueError(f"{damage.messages[0]}; a part of a split is not used: give a whole file")
    return content


def read_text(path: Path, encoding: str, report: ReadReport) -> list[str]:
    r"""Returns the lines of a file without their ends: `\n` or `\r\n`, or `\r` in all of it.

    A line that is not UTF-8 is read as Windows-1252, and counted: that is what such lines
    mostly are in files put together from several sources.

    Args:
      path: compressed where its ending says so (`reading.COMPRESSIONS`).
      encoding: of the file; a byte order mark decides over it.
      report: told of what was repaired.

    Raises:
      ValueError: the file is damaged or cut short, there is no such encoding, or the lines that are
        not UTF-8 are Korean in its old encoding.
    """
    content = read_whole(path, encoding, report)
    if b"\n" not in content.removesuffix(b"\n") and content.count(b"\r") > 1:
        report.add_problem("lines end with CR alone: read as lines", path.name)
        content = content.replace(b"\r", b"\n")
    lines = content.split(b"\n")
    _check_korean(lines, path)
    return [
        _decode(line.removesuffix(b"\r"), f"{path.name}:{number}", report)
        for number, line in enumerate(lines[:-1] if not lines[-1] else lines, start=1)
    ]


def _check_korean(lines, path):
    """Raises ValueError for text in CP949: as Windows-1252 it would be letters, but nonsense."""
    odd = [(number, line) for number, line in enumerate(lines, start=1) if not _is_utf8(line)]
    korean = [number for number, line in odd if _HANGUL.search(line.decode("cp949", "replace"))]
    if len(korean) * 2 > len(odd):
        raise ValueError(
            f"{path}:{korean[0]}: got {len(korean):,} lines that are no UTF-8 but Korean in CP949, "
            "expected one encoding throughout; give --config.encoding=cp949, or convert the file"
        )


def _is_utf8(line):
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _decode(line: bytes, here: str, report: ReadReport) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        report.add_problem("line is not UTF-8: read as Windows-1252", here, error)
        text = line.decode("cp1252", "replace")
    if "\0" in text:
        report.add_problem("NUL bytes removed", here)
        text = text.replace("\0", "")
    return text


def split_by_class(
    labels: Sequence[str], shares: Sequence[int], *, seed: int
) -> tuple[list[int], ...]:
    """Returns, for each share, the sorted positions of its examples; together they are all.

    Each class is spread by the shares as exactly as whole examples allow: largest remainders,
    and between equal ones the share that is furthest behind over all classes.

    Args:
      labels: the class of each example.
      shares: relative sizes, such as (8, 1, 1).
      seed: chooses the examples.
    """
    random = np.random.default_rng(seed)
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    total = sum(shares)
    chosen: tuple[list[int], ...] = tuple([] for _ in shares)
    behind = [0] * len(shares)  # in units of 1 / total examples
    for label in sorted(places):
        here = places[label]
        due = [len(here) * share for share in shares]
        sizes = [size // total for size in due]
        by_need = sorted(
            range(len(shares)),
            key=lambda index: (-(due[index] % total), -behind[index], index),
        )
        for index in by_need[: len(here) - sum(sizes)]:
            sizes[index] += 1
        shuffled = random.permutation(here).tolist()
        for index, size in enumerate(sizes):
            chosen[index].extend(shuffled[:size])
            del shuffled[:size]
            behind[index] += due[index] - size * total
    return tuple(sorted(part) for part in chosen)


def split_by_group(
    groups: Sequence[str], shares: Sequence[int], *, seed: int
) -> tuple[list[int], ...]:
    """Returns, for each share, the sorted positions of its examples; a group is never divided.

    Every share but the first takes groups in random order, as long as they fit into what is its
    due, and the smallest one left if none does; the first share has the rest.

    Args:
      groups: the group of each example, such as its document; at least as many as shares.
      shares: relative sizes, such as (8, 1, 1).
      seed: chooses the groups.
    """
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    names = list(places)
    left = [places[names[index]] for index in np.random.default_rng(seed).permutation(len(names))]
    chosen: list[list[list[int]]] = [[] for _ in shares]
    for number in range(len(shares) - 1, 0, -1):
        room = len(groups) * shares[number] / sum(shares)
        for group in list(left):
            if len(group) <= room and len(left) > number:  # one is left for every other share
                left.remove(group)
                chosen[number].append(group)
                room -= len(group)
        if not chosen[number]:
            chosen[number].append(left.pop(left.index(min(left, key=len))))
    chosen[0] = left
    return tuple(sorted(place for group in part for place in group) for part in chosen)


def choose(examples: Sequence[Any], most: int, random: np.random.Generator) -> list[Any]:
    """Returns at most so many of the examples, drawn at random, in their order; 0: all."""
    if not 0 < most < len(examples):
        return list(examples)
    return [examples[index] for index in np.sort(random.permutation(len(examples))[:most])]
