# SPDX-License-Identifier: Apache-2.0
"""Exported models of every kind, made once; tests read their folders and change nothing."""

from pathlib import Path

import pytest

from edad_jax.export import formats
from edad_jax.runtime import models
from tests.runtime.stand_ins import SMALL, NamedPieces, PointsAtGene
from tests.tiny_exports import tiny_model


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> dict[str, Path]:
    """Returns {kind: export folder} of random models."""
    root = tmp_path_factory.mktemp("runtime")
    return {
        kind: formats.export(
            formats.load(tiny_model(root / kind, tokenizer_dir, kind)),
            "onnx",
            root / f"{kind}-onnx",
        )
        for kind in ("tagging", "classification", "encoder", "answering")
    }


@pytest.fixture
def tagger(folders: dict[str, Path]) -> models.Tagger:
    """Returns a Tagger with short windows, whose net is a list of two words."""
    tagger = models.Tagger(folders["tagging"], **SMALL)
    tagger.session = NamedPieces(tagger)
    return tagger


@pytest.fixture
def answerer(folders: dict[str, Path]) -> models.QuestionAnswerer:
    """Returns a QuestionAnswerer with short windows, whose net answers with one word."""
    answerer = models.QuestionAnswerer(folders["answering"], **SMALL)
    answerer.session = PointsAtGene(answerer)
    return answerer
