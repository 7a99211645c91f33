# SPDX-License-Identifier: Apache-2.0
"""A pipeline small enough for tests: text, a teacher, labelled sentences and a configuration."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import pipeline
from tests.tiny_run import make_inputs, tiny_config
from tests.tiny_tasks import write_tagging


def tiny_pipeline(folder: Path, **changes: Any) -> ConfigDict:
    """Returns configs/pipeline.py, shrunk, for what `make_pipeline_inputs` left in `folder`."""
    config = pipeline.get_config()
    with config.unlocked():
        config.update(tiny_config(folder).copy_and_resolve_references())
    config.data = str(folder / "tagged")
    config.finetune.dtype = "float32"
    config.finetune.max_length = 32
    config.finetune.epochs = 2
    config.finetune.batch_size = 8
    config.finetune.optimizer.learning_rate = 2e-2
    config.finetune_large.epochs = 2
    config.finetune_large.optimizer.learning_rate = 2e-2
    config.export.verify_rows = 4
    config.speed.seconds = 0.0
    config.speed.length = 32
    with config.unlocked():
        config.update_from_flattened_dict(
            {key.replace("__", "."): value for key, value in changes.items()}
        )
    return config


def make_pipeline_inputs(folder: Path) -> Path:
    """Returns the folder, with corpus.txt, teacher/ and tagged/."""
    make_inputs(folder)
    write_tagging(folder / "tagged")
    return folder
