# SPDX-License-Identifier: Apache-2.0
"""What the tests of the data stages share."""

import pytest

from tests.tiny_text import write_tokenizer


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
