# SPDX-License-Identifier: Apache-2.0
r"""Sequence classification: fine-tunes an encoder on labelled texts.

    python launch/finetune.py --config configs/classify.py --config.model=runs/pmc/student \
        --config.data=/data/reviews.csv --workdir runs/reviews

`data` is a csv, tsv or jsonl file (split 8:1:1 by class), a folder with train, validation and test
files, or a `datasets` data set. Columns: --config.text_key and --config.label_key, or the obvious.
"""

from ml_collections import ConfigDict

from configs import ner


def get_config() -> ConfigDict:
    """Returns the tagging configuration, for labelled texts."""
    config = ner.get_config()
    config.task = "classification"
    return config
