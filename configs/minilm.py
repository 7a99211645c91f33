# SPDX-License-Identifier: Apache-2.0
r"""MiniLM: a student learns the relations of its teacher's last layer (MiniLMv2).

    python launch/train.py --config configs/minilm.py \
        --config.teacher.checkpoint=runs/adapt/teacher --config.prepared=runs/adapt \
        --workdir runs/minilm

The teacher is one that has been adapted, with the rows that it learned from.

Of the student's last block only queries, keys and values learn: fine-tune the student before its
last hidden states are used, or let it begin with its teacher's layers
(--config.student.init=teacher, where their sizes allow it).

The student may have any width and any number of heads: here MiniLM's 6 x 384. The published
MiniLMv2 takes 400,000 updates of 256 rows at 6e-4 and 48 relation heads; not run at that size by
us.
"""

from ml_collections import ConfigDict

from configs import edad


def get_config() -> ConfigDict:
    """Returns the settings of a frozen teacher's distillation, by relations."""
    config = edad.get_config()
    config.method = "minilm"
    config.minilm.relation_heads = 48
    config.student.num_hidden_layers = 6
    config.student.hidden_size = 384
    config.student.intermediate_size = 1_536
    config.student.extension.hidden_size = 0  # no loss would reach the last block's extension
    config.batch_size = 256
    config.optimizer.name = "adamw"
    config.optimizer.student_learning_rate = 6e-4
    config.optimizer.schedule = "warmup_linear"
    config.optimizer.clip_by = "net"
    return config
