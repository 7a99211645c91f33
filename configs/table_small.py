# SPDX-License-Identifier: Apache-2.0
r"""The training runs of launch/reproduce.py --scale small: minutes each on two CPU cores.

    python launch/reproduce.py --table 2 --scale small --teacher /models/e5-small \
        --corpus '/data/medicine/*.txt.zst' --ner /data/ner

Rows of 64 pieces, 300 updates of 32 rows (about 0.6 million pieces), otherwise as in
configs/edad_small.py. What came out stands in docs/results/.
"""

from ml_collections import ConfigDict

from configs import edad_small


def get_config() -> ConfigDict:
    """Returns the small configuration with shorter rows and fewer updates."""
    config = edad_small.get_config()
    config.rows.max_length = 64
    config.masking.max_predictions = 10
    config.max_steps = 300
    config.heldout.every_steps = 100
    config.heldout.max_rows = 256
    config.checkpoint.every_steps = 50
    return config
