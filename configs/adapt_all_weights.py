# SPDX-License-Identifier: Apache-2.0
r"""Domain adaptation in BioBERT's way: all weights of a BERT learn on, with its own vocabulary.

    python launch/train.py --config configs/adapt_all_weights.py \
        --config.corpus.files='/data/pmc/*.jsonl' --workdir runs/biobert-way

The paper's oiBioBERT: 9.7 h on four RTX 3090. configs/distil.py then distils it.
"""

from ml_collections import ConfigDict

from configs import edad


def get_config() -> ConfigDict:
    """Returns the first of two stages, with nothing frozen and nothing added."""
    config = edad.get_config()
    config.method = "adaptation"
    config.teacher.frozen = ()
    config.teacher.extension.hidden_size = 0
    config.vocabulary.size = 0
    return config
