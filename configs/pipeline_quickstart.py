# SPDX-License-Identifier: Apache-2.0
"""The whole chain on a laptop, with nothing to download but packages.

    python launch/pipeline.py --config configs/pipeline_quickstart.py --workdir runs/pipeline

Teacher and text are those of configs/quickstart.py, with fewer updates. The labels are made by rule
from the same docstrings: names of parameters, types and functions, as their authors mark them. No
person has labelled or checked them (docs/pipeline.md has the rule).
"""

from ml_collections import ConfigDict

from configs import pipeline, quickstart


def get_config() -> ConfigDict:
    """Returns the quick start's configuration with the stages that follow training."""
    config = pipeline.get_config()
    given = quickstart.get_config()
    with config.unlocked():
        config.update(given.copy_and_resolve_references())
    config.max_steps = 100
    config.heldout.max_rows = 256
    config.heldout.every_steps = 50
    config.checkpoint.every_steps = 50
    config.optimizer.warmup_ratio = 0.1

    config.labels.packages = given.corpus.packages
    config.labels.sentences = 2_500
    config.finetune.max_train = 1_000
    config.finetune.max_validation = 200
    config.finetune.max_test = 500
    config.finetune.max_length = 64
    config.finetune.batch_size = 16
    config.finetune.epochs = 3
    config.finetune.hidden_dropout_prob = 0.0  # few sentences, few epochs
    config.finetune.attention_probs_dropout_prob = 0.0
    config.finetune.optimizer.learning_rate = 3e-4
    config.finetune_large.epochs = 3
    config.finetune_large.optimizer.learning_rate = 2e-4
    config.export.verify_rows = 100
    config.speed.seconds = 1.5
    config.speed.turns = 3
    return config
