# SPDX-License-Identifier: Apache-2.0
"""From task data to splits: what reading tagged, labelled and questioned texts has in common."""

from __future__ import annotations

import abc
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from edad_jax.data.text.reading import ReadReport
from edad_jax.tasks.data import splits as task_splits
from edad_jax.tasks.data.records import Skipped

if TYPE_CHECKING:
    from datasets import Dataset

Example = TypeVar("Example")


@dataclasses.dataclass(kw_only=True)
class SplitReader(abc.ABC, Generic[Example]):
    """Reads the splits of a kind of data, counts what it skips, makes the splits that are missing.

    A kind of data gives the abstract methods, and any of the others that it does otherwise. What a
    reader has to say goes into `notes` (counts and decisions, said first) and `report` (problems).
    """

    encoding: str = "utf-8"  # of the files; a byte order mark decides over it
    seed: int = 0  # of the splits that are made
    dataset_config: str = ""  # of data sets that have several configurations
    shares: Sequence[int] = (8, 1, 1)  # sizes of SPLITS, where some are missing; 0: not made
    allow_skipped_test: bool = False  # whether examples of the test split may be left out
    report: ReadReport = dataclasses.field(default_factory=ReadReport)
    notes: list[str] = dataclasses.field(default_factory=list)
    reasons: dict[str, Counter] = dataclasses.field(default_factory=dict)  # of skipping, by split

    formats: ClassVar[Sequence[str]]  # endings of the files
    examples: ClassVar[str]  # what messages call the examples
    records: ClassVar[str]  # and what they call those that are skipped
    # What the test split may keep secret, as in many competitions, and the reasons of `Skipped`
    # that say so.
    secret: ClassVar[str]
    unlabelled: ClassVar[Sequence[str]]

    @abc.abstractmethod
    def find(self, path: Path) -> dict[str, Path]:
        """Returns {split: file} of what lies at a path."""

    @abc.abstractmethod
    def read_file(self, path: Path, split: str) -> Iterable[Example | Skipped]:
        """Yields the examples of a file."""

    @abc.abstractmethod
    def read_rows(self, rows: Dataset, split: str) -> Iterable[Example | Skipped]:
        """Yields the examples of a data set's split."""

    @abc.abstractmethod
    def count(self, examples: Sequence[Example], skipped: int) -> str:
        """Returns what the notes say of a split's size."""

    @abc.abstractmethod
    def documents(self, examples: Sequence[Example]) -> Iterable[str]:
        """Yields the texts of a split."""

    @abc.abstractmethod
    def divide(
        self, data: str, examples: Sequence[Example], shares: Mapping[str, int]
    ) -> tuple[Sequence[Sequence[int]], str]:
        """Returns the places of each share's examples, and what the notes say of the division."""

    @abc.abstractmethod
    def check(self, data: str, splits: dict[str, list[Example]]) -> None:
        """Looks at the splits as they will be used; may leave out examples."""

    def harmonise(self, splits: dict[str, list[Example]]) -> dict[str, list[Example]]:
        """Returns the splits after what must know all of them."""
        return splits

    def read(self, data: str) -> tuple[dict[str, list[Example]], ReadReport]:
        """Returns the splits in the order of SPLITS, and the report.

        Raises:
          ValueError: no training split, a split without examples, an example of the test split
            that cannot be used (unless allow_skipped_test), too few to make a split of, a data
            set that cannot be loaded, or what the kind of data finds.
        """
        splits = self.harmonise(self._read_given(data))
        self._check_test(data, splits)
        for split, examples in splits.items():
            if not examples:
                raise ValueError(
                    f"{data}: got 0 {self.examples} to use for {split}, expected at least one; "
                    f"mend or remove that split\n{self.report.summary()}"
                )
            self.notes.append(f"{split}: {self.count(examples, self._count_skipped(split))}")
            for document in self.documents(examples):
                self.report.add_document(document)
        splits = self.add_missing(data, splits)
        self.check(data, splits)
        counts = {split: self._count_skipped(split) for split in splits}
        self.report.skipped = {split: count for split, count in counts.items() if count}
        self.report.messages[:0] = self.notes
        return splits, self.report

    def _read_given(self, data: str) -> dict[str, list[Example]]:
        """Returns the splits that are there, as they are."""
        path = Path(data).expanduser()
        files = self.find(path) if data.strip() and path.exists() else {}
        got = sorted(each.name for each in (path.iterdir() if path.is_dir() else [path]))
        splits: dict[str, list[Example]] = {}
        if files:
            for split, file in files.items():
                splits[split] = self.keep(self.read_file(file, split), split)
        elif task_splits.is_dataset(data):
            loaded, unused = task_splits.load_dataset(data, self.dataset_config)
            got = [*loaded, *unused]
            for split, rows in loaded.items():
                splits[split] = self.keep(self.read_rows(rows, split), split)
            self.notes += [f"{name}: split not used" for name in unused]
        if not splits.get("test", True) and self._is_unlabelled("test"):
            del splits["test"]
            self.report.problems.pop(f"test: {self.records} skipped")  # none of a split in use
            where = files["test"].name if files else "test"
            self.notes.append(f"{where}: split not used, since it has no {self.secret}")
        if "train" not in splits:
            raise task_splits.no_train_error(data, got, self.formats)
        return splits

    def _count_skipped(self, split: str) -> int:
        return self.report.problems.get(f"{split}: {self.records} skipped", 0)

    def _is_unlabelled(self, split: str) -> bool:
        """Returns whether what was skipped of a split mostly lacks what is asked for."""
        reasons = self.reasons.get(split, Counter())
        return sum(reasons[reason] for reason in self.unlabelled) * 2 > reasons.total()

    def scored(self, splits: Mapping[str, Sequence[Example]]) -> str:
        """Returns which of the splits that are there will be the test split."""
        del splits
        return "test"

    def _check_test(self, data: str, splits: Mapping[str, Sequence[Example]]) -> None:
        """Raises ValueError where a score would be of a part of the test split only."""
        split = self.scored(splits)
        skipped = self._count_skipped(split)
        if not skipped or not splits.get(split):  # that there are none left is said elsewhere
            return
        of = f"{skipped:,} of the {skipped + len(splits[split]):,} {self.records} of {split}"
        if self.allow_skipped_test:
            self.notes.append(f"{split}: the score will be of a part: {of} skipped, as allowed")
            return
        reasons = "; ".join(
            f"{count:,} x {reason}" for reason, count in self.reasons[split].items()
        )
        raise ValueError(
            f"{data}: got {of}, the split to score, that cannot be used ({reasons}); expected a "
            "whole split, since a score of what is left is another score; mend them, or give "
            f"--config.allow_skipped_test=True\n{self.report.summary()}"
        )

    def keep(self, parsed: Iterable[Example | Skipped], split: str) -> list[Example]:
        """Returns the examples; counts what is skipped of a split."""
        examples = []
        for each in parsed:
            if isinstance(each, Skipped):
                each.tell(self.report, f"{split}: {self.records}")
                reasons = self.reasons.setdefault(split, Counter())
                reasons.update(reason for reason, _, _ in each.problems)
            else:
                examples.append(each)
        return examples

    def add_missing(self, data: str, splits: dict[str, list[Example]]) -> dict[str, list[Example]]:
        """Returns the splits, with those that are missing taken from the training examples."""
        shares = {
            split: share
            for split, share in zip(task_splits.SPLITS, self.shares, strict=True)
            if share and (split == "train" or split not in splits)
        }
        if len(shares) > 1:
            whole = splits["train"]
            parts, how = self.divide(data, whole, shares)
            lacking = " and no ".join(split for split in shares if split != "train")
            self.notes.append(f"no {lacking} split: {how}")
            splits = splits | {
                split: [whole[place] for place in part]
                for split, part in zip(shares, parts, strict=True)
            }
        if "test" not in splits:
            self.notes.append("no test split: there will be no test score")
        return {split: splits[split] for split in task_splits.SPLITS if split in splits}
