# SPDX-License-Identifier: Apache-2.0
r"""Domain adaptation in SciBERT's way: a vocabulary of the domain's own, and random weights.

    python launch/train.py --config configs/adapt_from_scratch.py \
        --config.corpus.files='/data/pmc/*.jsonl' --workdir runs/scibert-way

The paper's oiSciBERT: 31,090 words as SciBERT has, 10% warm-up and linear decay; 10.6 h on four
RTX 3090. Of config.teacher.checkpoint only the sizes and the kind of tokenizer are taken.
"""

from ml_collections import ConfigDict

from configs import edad


def get_config() -> ConfigDict:
    """Returns the first of two stages, from random weights."""
    config = edad.get_config()
    config.method = "adaptation"
    config.teacher.from_scratch = True
    config.teacher.frozen = ()
    config.teacher.extension.hidden_size = 0
    config.vocabulary.from_scratch = True
    config.vocabulary.size = 30_986  # and the 104 special and unused pieces of BERT
    config.optimizer.schedule = "warmup_linear"
    return config
