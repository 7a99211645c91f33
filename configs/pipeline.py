# SPDX-License-Identifier: Apache-2.0
r"""From raw text and a labelled file to an int8 model, its card and a report, in one command.

    python launch/pipeline.py --config configs/pipeline.py \
        --config.corpus.files='/data/medicine/*.txt.zst' --config.data=/data/NCBI-disease-IOB \
        --config.teacher.checkpoint=/models/e5-small --workdir runs/medicine

All that launch/train.py reads stands at the top, as in configs/edad_small.py; below it are the
labelled data, fine-tuning, export and timing. docs/pipeline.md tells the stages one by one.
"""

from ml_collections import ConfigDict

from configs import edad_small, ner


def get_config() -> ConfigDict:
    """Returns every setting of a pipeline."""
    config = edad_small.get_config()
    config.data = ""  # tagged sentences: a folder with train, validation and test, or a data set
    config.labels = ConfigDict()  # instead: made by rule from docstrings (docs/pipeline.md)
    config.labels.packages = ()  # installed Python packages
    config.labels.sentences = 0  # at most; 0: all that there are

    config.finetune = ner.get_config()  # of the student; base model and teacher, but for the next
    for given in ("model", "data", "teacher"):  # the pipeline's business
        del config.finetune[given]
    config.finetune.optimizer.learning_rate = 2e-4
    config.finetune_large = ConfigDict()  # what base model and teacher have otherwise
    config.finetune_large.epochs = 5
    config.finetune_large.optimizer = ConfigDict()
    config.finetune_large.optimizer.learning_rate = 1e-4
    config.soft_labels = False  # whether the student also learns the fine-tuned teacher's labels

    config.export = ConfigDict()
    config.export.verify_rows = 200  # random rows to compare the exported student on; 0: do not
    config.export.reduce_range = False  # for x86 CPUs without VNNI (before 2019)

    config.speed = ConfigDict()  # launch/benchmark_edge.py
    config.speed.seconds = 3.0  # for each model and case; 0: no timing
    config.speed.turns = 5
    config.speed.length = 128  # pieces of a row
    return config
