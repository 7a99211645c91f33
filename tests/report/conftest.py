# SPDX-License-Identifier: Apache-2.0
"""What the tests of pictures share."""

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """Returns the figures that would be saved; no pixel is computed, which takes seconds."""
    saved = []

    def savefig(self, path, **_):
        saved.append(self)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved
