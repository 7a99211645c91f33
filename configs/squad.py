# SPDX-License-Identifier: Apache-2.0
r"""Extractive question answering: fine-tunes an encoder on SQuAD 1.1, KorQuAD, or data like them.

    python launch/finetune.py --config configs/squad.py --config.model=runs/pmc/student \
        --config.data=/data/squad --workdir runs/squad

`data` is a folder with train*.json and dev*.json (then dev is the test set, and a tenth of train,
by document, the one to select by), maybe test*.json; a .json file alone (split 8:1:1 by document);
or a `datasets` data set with SQuAD's columns. KorQuAD: --config.scoring=korquad.

The values are those of BERT's SQuAD run (384 pieces, 2 epochs, 3e-5 for BERT-base); a small student
needs a larger learning rate and more epochs. From a teacher fine-tuned by the same configuration
(--config.teacher=runs/teacher/model, same tokenizer) a student learns as in DistilBERT's second
step: soft_weight 0.5 and temperature 2, where they are None.

Reached, at a small scale: F1 60 by a BERT-base, from 1,200 questions (docs/results.md, section 9).
"""

from ml_collections import ConfigDict

from configs import ner


def get_config() -> ConfigDict:
    """Returns the tagging configuration, for questions on contexts."""
    config = ner.get_config()
    config.task = "answering"
    del config.text_key, config.label_key  # the columns have SQuAD's names
    config.max_length = 384  # pieces of a row; questions: of [CLS] question [SEP] window [SEP]
    config.max_query_length = 64  # pieces of a question at most
    # Pieces that neighbouring windows share: what transformers' scripts call doc_stride. (In BERT's
    # own code that is the step from window to window.)
    config.overlap = 128
    config.n_best = 20  # starts, and ends, of a window that are tried with each other
    config.max_answer_length = 30  # pieces
    config.scoring = "squad"  # squad | korquad
    config.epochs = 2
    config.batch_size = 32
    config.optimizer.learning_rate = 3e-5
    return config
