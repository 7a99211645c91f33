# SPDX-License-Identifier: Apache-2.0
r"""Three-class sentiment of news, as in the Distil-KcBERT thesis.

    python launch/finetune.py --config configs/sentiment.py \
        --config.model=runs/distilkcbert/student \
        --config.data=/data/sentiment.csv --config.text_key=text --config.label_key=label \
        --workdir runs/sentiment

Files without splits are split 8:1:1 by class, as there. The thesis has 5,000 news items and says
nothing of learning rate or batch; its best student needed 20 epochs.
"""

from ml_collections import ConfigDict

from configs import classify


def get_config() -> ConfigDict:
    """Returns the classification configuration with the thesis's 20 epochs."""
    config = classify.get_config()
    config.epochs = 20
    return config
