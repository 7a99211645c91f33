# SPDX-License-Identifier: Apache-2.0
r"""Named-entity recognition: fine-tunes an encoder on tagged sentences.

    python launch/finetune.py --config configs/ner.py --config.model=runs/pmc/student \
        --config.data=/data/NCBI-disease-IOB --workdir runs/ncbi

`model` is a student or a teacher of launch/train.py, or any BERT in Hugging Face layout (folder or
hub id); `data` a folder with train, validation and test files of two columns, or a `datasets` data
set. The paper: 3 epochs for teachers, 15 for students, five seeds. A student needs a learning rate
of 1e-4 or more, and more epochs than a BERT-base (5e-5, 3 epochs).
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns every setting of a fine-tuning run."""
    config = ConfigDict()
    config.task = "tagging"  # tagging | classification | answering
    config.model = ""  # folder or hub id
    config.data = ""  # folder, file or data set
    # Column of the words or texts, by its name, or by its number from 0 in files without a header
    # (all .conll, .txt, .tsv of tagged words); empty: the obvious one.
    config.text_key = ""
    config.label_key = ""  # column of the tags or labels, likewise
    config.dataset_config = ""  # of a data set, where it has several
    config.encoding = "utf-8"  # of files
    config.split_seed = 0  # of the split, where the data has none
    # Whether examples of the test split that cannot be used may be left out; else an error.
    config.allow_skipped_test = False
    config.max_train = 0  # examples to train on, a random choice; 0: all
    config.max_validation = 0  # examples to select by, likewise
    config.max_test = 0  # examples to score once at the end, likewise

    config.seed = 0  # of the first run
    config.num_seeds = 1  # runs, with seeds seed, seed + 1, ...; they share one program
    config.over_seeds = "auto"  # vmap: all at once; loop: in turn, less memory; auto: by device
    config.dtype = (
        "auto"  # bfloat16 on GPU, TPU; on CPU bfloat16_matmul where it is fast, or float32
    )
    config.max_unknown_share = 0.2  # of a split's pieces that are [UNK]; more is an error
    config.max_length = 128  # pieces; a longer sentence is cut into several rows
    config.epochs = 15  # over the training split
    config.batch_size = 32  # rows per update and seed
    config.hidden_dropout_prob = config_dict.placeholder(float)  # None: the checkpoint's
    config.attention_probs_dropout_prob = config_dict.placeholder(float)  # likewise

    config.teacher = ""  # task distillation: folder of a model fine-tuned on the same labels
    config.soft_weight = config_dict.placeholder(float)  # of its labels, 0 to 1; None: 0.5
    config.temperature = config_dict.placeholder(float)  # of its labels; None: 1, answering 2

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"  # adamw | bert_adam
    config.optimizer.learning_rate = 5e-5  # of all weights; a student needs 1e-4 or more
    config.optimizer.schedule = "warmup_linear"  # constant | linear | warmup_linear
    config.optimizer.warmup_ratio = 0.1  # of all updates, for warmup_linear
    config.optimizer.b1 = 0.9  # Adam's decay of the mean
    config.optimizer.b2 = 0.999  # and of the mean square
    config.optimizer.eps = 1e-6  # Adam's
    config.optimizer.weight_decay = 0.01  # not of biases and norms
    config.optimizer.clip_norm = 1.0  # largest norm of a gradient
    config.optimizer.clip_by = "net"  # net: over all tensors; tensor: each by itself

    config.parallel = ConfigDict()
    config.parallel.engine = "auto"  # auto | pmap | shard_map
    config.checkpoint = ConfigDict()
    config.checkpoint.every_minutes = 10.0  # after any step; 0: not by the clock
    config.checkpoint.every_steps = 0  # after so many steps, and after the last; 0: by the clock
    config.checkpoint.keep = 1  # how many of the newest stay
    config.progress = True  # whether a bar is shown
    return config
