# SPDX-License-Identifier: Apache-2.0
r"""Distil-KcBERT: a DistilBERT of the Korean KcBERT, by the triple loss.

    python launch/prepare.py --config configs/distilkcbert.py \
        --config.corpus.files='/data/news/*.txt' --out runs/news-rows        # rows + piece counts
    python launch/train.py --config configs/distilkcbert.py \
        --config.prepared=runs/news-rows --workdir runs/distilkcbert
    python launch/finetune.py --config configs/sentiment.py \
        --config.model=runs/distilkcbert/student \
        --config.data=/data/sentiment.csv --workdir runs/sentiment

A .txt file has an item a line; with blank lines between longer texts, add
--config.corpus.lines=False.

The thesis: 800,000 lines of news, nine students (1, 3 or 6 layers, feed-forward 192, 768 or 3072)
on one RTX 2080 Ti; this is the fifth, its best. What it does not say is taken from DistilBERT's
published code. launch/reproduce.py --table kcbert-4 runs all nine. Not yet run with KcBERT by us;
docs/results.md has the nine students of another Korean teacher.
"""

from ml_collections import ConfigDict

from configs import edad


def get_config() -> ConfigDict:
    """Returns every setting of a training run."""
    config = edad.get_config()
    config.method = "triple"

    config.corpus.lines = True  # a news item a line: no two of them share a row
    config.vocabulary.size = 0  # the student has the teacher's words
    config.rows.mode = "single"  # one segment; there is no next-sentence loss
    config.rows.max_length = 128
    config.rows.buckets = (32, 64)  # news lines are short
    config.masking.smoothing = 0.7

    config.teacher.checkpoint = "beomi/kcbert-base"  # cased, 30,000 pieces, 300 positions
    config.teacher.random_heads = ("pooler", "nsp")  # neither is read
    config.teacher.extension.hidden_size = 0

    config.student.num_hidden_layers = 3
    config.student.hidden_size = 768
    config.student.intermediate_size = 768
    config.student.max_position_embeddings = 300
    config.student.type_vocab_size = 0  # DistilBERT has no segments
    config.student.has_pooler = False
    config.student.extension.hidden_size = 0
    config.student.init = "teacher"
    config.student.inherit.layer_rule = "distilbert"

    config.triple.soft, config.triple.mlm, config.triple.cosine = 0.625, 0.25, 0.125
    config.triple.temperature = 2.0
    config.triple.positions = "all"

    config.epochs = 3.0
    config.batch_size = 256
    config.accumulate_steps = 16  # logits at all positions: 0.25 GB for 16 rows, 4 GB for 256
    config.optimizer.name = "adamw"
    config.optimizer.student_learning_rate = 5e-4
    config.optimizer.schedule = "warmup_linear"
    config.optimizer.warmup_ratio = 0.05
    config.optimizer.b1, config.optimizer.b2 = 0.9, 0.98
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm, config.optimizer.clip_by = 5.0, "net"
    return config
