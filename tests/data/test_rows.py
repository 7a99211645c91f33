# SPDX-License-Identifier: Apache-2.0
"""What decides rows, and how they lie on disk."""

import dataclasses

import numpy as np
import pytest

from configs import edad
from edad_jax.data.rows import RowSettings, row_type
from tests.tiny_text import TINY_ROWS


def test_wide_vocabulary_gets_wide_ids():
    assert row_type(65_536, 128)["ids"].base == np.uint16
    assert row_type(65_537, 128)["ids"].base == np.uint32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "other"}, "config.rows.mode='other' is not one of pairs, single"),
        ({"max_length": 3}, "got config.rows.max_length=3, expected 8 to 65535 pieces"),
        ({"max_length": 65_536}, "got config.rows.max_length=65536"),
        ({"short_seq_prob": -0.1}, "got config.rows.short_seq_prob=-0.1, expected 0 to 1"),
        ({"duplicates": 0}, "got config.rows.duplicates=0, expected 1 or more"),
        ({"mode": "single", "duplicates": 2}, "single segments have no random choices"),
        ({"packed": True}, "packs single segments, and config.rows.mode='pairs'.*mode=single"),
        ({"packed": True, "mode": "single", "max_length": 31}, "=31, expected 32 or more with"),
        ({"heldout_fraction": 1.5}, "got config.heldout.fraction=1.5, expected 0 or more, below 1"),
        ({"seed": -1}, "got config.seed=-1, expected 0 or more"),
    ],
)
def test_impossible_settings_are_errors_that_name_the_option(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY_ROWS, **wrong)


def test_settings_are_those_of_the_configuration():
    config = edad.get_config()
    config.rows.update(max_length=64, short_seq_prob=0.2, duplicates=3)
    config.heldout.fraction, config.seed = 0.25, 7
    assert RowSettings.from_config(config) == RowSettings(
        max_length=64, short_seq_prob=0.2, duplicates=3, heldout_fraction=0.25, seed=7
    )
    config.rows.update(mode="single", packed=True, duplicates=1)
    assert RowSettings.from_config(config).packed


def test_rows_that_are_not_packed_are_recorded_as_before_there_were_packed_ones():
    plain = dataclasses.replace(TINY_ROWS, mode="single")
    packed = dataclasses.replace(plain, packed=True)
    assert plain.recorded()["format_version"] == 1 and "packed" not in plain.recorded()
    assert packed.recorded() == plain.recorded() | {"format_version": 2, "packed": True}
    assert row_type(100, 36).itemsize == 36 * 2 + 5
    assert row_type(100, 36, packed=True).itemsize == 36 * 2 + 5 + 5  # a bit for each piece
