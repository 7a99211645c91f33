# SPDX-License-Identifier: Apache-2.0
"""Sections of a configuration as frozen dataclasses that check themselves.

In options that only some runs read, None stands for the dataclass's own default. So there is one
copy of each default, and an option that was given is told from one that was not.
"""

import functools
import operator
from collections.abc import Iterator
from typing import Any, TypeVar

from ml_collections import ConfigDict

Section = TypeVar("Section")


def read_section(kind: type[Section], section: ConfigDict, **more: Any) -> Section:
    """Returns the section as its dataclass, which raises ValueError for what cannot be."""
    return kind(**{name: value for name, value in section.items() if value is not None}, **more)


def given_options(config: ConfigDict, name: str) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of the options at or below `name` that are not None."""
    value = functools.reduce(operator.getitem, name.split("."), config)
    if isinstance(value, ConfigDict):
        for key in value:
            yield from given_options(config, f"{name}.{key}")
    elif value is not None:
        yield name, value


def check_not_given(config: ConfigDict, name: str, readers: str) -> None:
    """Raises ValueError for an option that was given and that this run would not read.

    Who sets an option that the run then ignores believes that it did something.

    Args:
      config: of the run.
      name: of an option or a section, dotted.
      readers: which runs read it, and what this one is.
    """
    for option, value in given_options(config, name):
        raise ValueError(
            f"config.{option}={value!r} is read with {readers}: it would change nothing; leave it "
            "out"
        )
