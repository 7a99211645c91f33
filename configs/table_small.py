# SPDX-License-Identifier: Apache-2.0
r"""The training runs of launch/reproduce.py --scale small: minutes each on two CPU cores.

    python launch/reproduce.py --table 2 --scale small --teacher /models/e5-small \
        --corpus '/data/medicine/*.txt.zst' --ner /data/ner --jobs 2

120 updates of 32 rows of 64 pieces (about a quarter of a million), and what so little text asks
for: few added words, which begin as the mean of their pieces. Otherwise as configs/edad_small.py.
What came out stands in docs/results/. Students 768 wide that begin with their teacher's layers lose
them at this learning rate: give --config.optimizer.student_learning_rate=1e-4 (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import edad_small


def get_config() -> ConfigDict:
    """Returns the small configuration with shorter rows and fewer updates."""
    config = edad_small.get_config()
    config.rows.max_length = 64
    config.masking.max_predictions_per_seq = 10
    config.vocabulary.size = 1_000  # each seen some dozens of times, of 8,000 most hardly once
    config.teacher.added_word_init = "pieces"
    config.max_steps = 120
    config.heldout.every_steps = 60
    config.heldout.max_rows = 256
    config.checkpoint.every_steps = 50
    return config
