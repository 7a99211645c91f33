# SPDX-License-Identifier: Apache-2.0
r"""Domain adaptation in exBERT's way: BERT stays as it is, new words and side modules learn.

    python launch/train.py --config configs/adapt_extension.py \
        --config.corpus.files='/data/pmc/*.jsonl' --workdir runs/exbert

The teacher of the two-stage way: 14.1 h on four RTX 3090 in the paper. configs/distil.py is the
second stage.
"""

from ml_collections import ConfigDict

from configs import edad


def get_config() -> ConfigDict:
    """Returns the first of two stages."""
    config = edad.get_config()
    config.method = "adaptation"
    return config
