# SPDX-License-Identifier: Apache-2.0
r"""EDAD at a size that two CPU cores carry: a real 12 x 384 teacher, the paper's 12 -> 4 map.

    python launch/train.py --config configs/edad_small.py \
        --config.teacher.checkpoint=/models/e5-small \
        --config.corpus.files='/data/medicine/*.txt.zst' --workdir runs/medicine

The teacher is any BERT of 12 layers and 12 heads that comes without heads of its own, such as
e5-small. 800 updates of 32 x 128 pieces are about 3 million tokens. What it took and reached
stands in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import edad


def get_config() -> ConfigDict:
    """Returns the paper's configuration with a narrower teacher and one short pass."""
    config = edad.get_config()
    config.teacher.random_heads = ("mlm", "nsp", "pooler")
    config.teacher.extension.hidden_size = 132  # a third of the block, as in the paper
    config.teacher.extension.intermediate_size = 512
    config.teacher.gate_bias = 2.0  # begin with 88% of the original: there is little text
    config.teacher.hidden_dropout_prob = 0.0  # a single pass cannot overfit
    config.teacher.attention_probs_dropout_prob = 0.0
    config.student.hidden_dropout_prob = 0.0
    config.student.attention_probs_dropout_prob = 0.0
    config.student.gate_bias = 2.0

    config.vocabulary.size = 8_000
    config.heldout.max_rows = 512
    config.heldout.every_steps = 200
    config.batch_size = 32
    config.max_steps = 800
    config.optimizer.teacher_learning_rate = 1e-3
    config.optimizer.student_learning_rate = 1e-3
    config.optimizer.schedule = "warmup_linear"
    config.optimizer.clip_by = "net"
    config.checkpoint.every_steps = 100
    return config
