# SPDX-License-Identifier: Apache-2.0
r"""TinyBERT's general distillation from a frozen teacher: the second of two stages.

    python launch/train.py --config configs/distil.py --config.prepared=runs/exbert \
        --config.teacher.checkpoint=runs/exbert/teacher --workdir runs/exbert-student

From a teacher of configs/adapt_*.py, with the rows that it was trained on; 7.5 h on four RTX 3090
in the paper. A plain BERT, BioBERT or SciBERT (hub id or folder, cased or not) can be the teacher:

    python launch/train.py --config configs/distil.py --config.corpus.files='/data/pmc/*.jsonl' \
        --config.teacher.checkpoint=dmis-lab/biobert-base-cased-v1.2 --config.vocabulary.size=0 \
        --config.teacher.extension.hidden_size=0 --config.student.extension.hidden_size=0 \
        --workdir runs/biobert-student

The teacher's dropout is on, as in the reference code; for deterministic targets add
--config.teacher.hidden_dropout_prob=0.0 --config.teacher.attention_probs_dropout_prob=0.0.
"""

from ml_collections import ConfigDict

from configs import edad


def get_config() -> ConfigDict:
    """Returns the second of two stages: unmasked text, a rate of 1e-5."""
    config = edad.get_config()
    config.method = "distillation"
    config.optimizer.student_learning_rate = 1e-5
    return config
