# SPDX-License-Identifier: Apache-2.0
r"""Extractive question answering: fine-tunes an encoder on SQuAD 1.1, KorQuAD, or data like them.

    python launch/finetune.py --config configs/squad.py --config.model=runs/pmc/student \
        --config.data=/data/squad --workdir runs/squad

`data` is a folder with train*.json and dev*.json (then dev is the test set, and a tenth of train,
by document, the one to select by), maybe test*.json; a .json file alone (split 8:1:1 by document);
or a `datasets` data set with SQuAD's columns. KorQuAD: --config.scoring=korquad.

The values are those of BERT's SQuAD run (384 pieces, 2 epochs, 3e-5 for BERT-base); a small student
needs a larger learning rate and more epochs. From a teacher fine-tuned by the same configuration
(--config.teacher=runs/teacher/model, same tokenizer) DistilBERT's second step has soft_weight 0.5
and temperature 2, which are the defaults here.

Measured, at a small scale only (docs/results.md, section 9): a BERT-base reaches F1 60 from 1,200
questions (7e-5, batches of 8, three epochs). And all-MiniLM-L6-v2 (6 x 384), one epoch over 1,800
training questions whose contexts have 600 characters at most, --config.max_length=192
--config.overlap=64 --config.epochs=1 --config.batch_size=16
--config.optimizer.learning_rate=1.5e-4 --config.dtype=mixed, seed 0: F1 31.3 and exact match 20.2
on 500 questions drawn from the 10,570 of SQuAD's dev set; 350 s of CPU time for training, on two
cores that other work shared. The ONNX file gives 499 of the same 500 answers (float32 against
mixed), onnx-int8 404 of them and F1 30.4.
"""

from ml_collections import ConfigDict

from configs import ner


def get_config() -> ConfigDict:
    """Returns the tagging configuration, for questions on contexts."""
    config = ner.get_config()
    config.task = "answering"
    config.max_length = 384  # pieces of [CLS] question [SEP] window of the context [SEP]
    config.max_query = 64  # pieces of a question at most
    # Pieces that neighbouring windows share: what transformers' scripts call doc_stride. (In BERT's
    # own code that is the step from window to window.)
    config.overlap = 128
    config.n_best = 20  # starts, and ends, of a window that are tried with each other
    config.longest_answer = 30  # pieces
    config.scoring = "squad"  # squad | korquad
    config.epochs = 2
    config.batch_size = 32
    config.optimizer.learning_rate = 3e-5
    config.temperature = 2.0
    return config
