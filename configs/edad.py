# SPDX-License-Identifier: Apache-2.0
r"""EDAD as in the paper: BERT-base + extension teaches a 4 x 312 student, in one pass.

    python launch/train.py --config configs/edad.py \
        --config.corpus.files='/data/pmc/*.jsonl' --workdir runs/pmc

The paper: 500 million tokens of PubMed Central, three epochs, batches of 128 rows of 128
pieces, 17.4 h on four RTX 3090. Not yet run at that size by us; docs/results.md has what was.
Any value can be given on the command line: --config.batch_size=64, --config.alpha=cosine.
The paper computes all of every update; config.phases may leave out parts.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns every setting of a training run, in the order of the paper."""
    config = ConfigDict()
    config.seed = 0  # of weights, rows, masks and dropout
    config.method = "edad"  # edad | adaptation | distillation | triple | triple_adaptation | minilm
    # auto: bfloat16 on GPU, TPU; on CPU bfloat16_matmul where it is fast, or float32.
    config.dtype = "auto"

    config.prepared = ""  # folder of launch/prepare.py; empty: text is prepared in the workdir
    config.corpus = ConfigDict()
    config.corpus.files = ""  # globs or folders, comma-separated: .txt .jsonl .parquet .xml ...
    config.corpus.dataset = ""  # instead: a data set's hub id or folder, as `datasets` loads it
    config.corpus.dataset_config = ""  # of the data set, where it has several
    config.corpus.dataset_split = "train"  # of the data set
    config.corpus.packages = ()  # instead: installed Python packages, for their docstrings
    config.corpus.text_key = "text"  # field of jsonl, parquet and data sets
    config.corpus.encoding = "utf-8"  # of .txt files
    config.corpus.lines = False  # .txt: every line is a document, as of headlines; else blank lines

    config.vocabulary = ConfigDict()
    config.vocabulary.base = ""  # tokenizer to extend; empty: the teacher's
    config.vocabulary.size = 17_658  # words added (section 3.1)
    config.vocabulary.from_scratch = False  # words replace the base's, none are added (as SciBERT)
    config.vocabulary.max_megabytes = 1_000  # of text that the words are learned from

    config.rows = ConfigDict()
    config.rows.mode = "pairs"  # A and B, for NSP; single: one segment, as in DistilBERT
    config.rows.packed = False  # single: short documents share rows, each sees only itself
    config.rows.max_length = 128  # pieces
    config.rows.buckets = ()  # lengths to cut batches to, so that short rows cost less; ints
    config.rows.short_seq_prob = 0.1  # how often a document is cut into shorter pairs
    config.rows.duplicates = 1  # how often a document is cut anew into pairs
    config.rows.max_unknown_share = 0.2  # of pieces that are [UNK]; more is an error
    config.rows.workers = 0  # processes; 0: one a core

    config.heldout = ConfigDict()
    config.heldout.fraction = 0.01  # of the documents
    config.heldout.max_rows = 2_048  # read at each evaluation
    config.heldout.every_steps = 2_000  # updates between evaluations; 0: at both ends alone
    config.heldout.examples = 3  # gaps in held-out text that are shown filled at the end

    config.masking = ConfigDict()
    config.masking.mlm_probability = 0.15  # share of a row's pieces
    config.masking.max_predictions_per_seq = 20  # masked pieces of a row at most
    config.masking.smoothing = 0.0  # mask rare pieces more, by count ** -smoothing; DistilBERT: 0.7

    # MLM heads that the checkpoint lacks: random | frequencies: their bias says how often each
    # piece occurs | regression: that, and the best linear map of the net's features.
    config.mlm_head_init = "random"

    config.teacher = ConfigDict()
    config.teacher.checkpoint = "bert-base-uncased"  # hub id or folder in Hugging Face layout
    config.teacher.from_scratch = False  # random weights, in the checkpoint's sizes (SciBERT)
    config.teacher.random_heads = ()  # heads that the checkpoint lacks: "mlm", "nsp", "pooler"
    config.teacher.frozen = ("base", "pooler")  # parts that never change
    config.teacher.extension = ConfigDict()
    config.teacher.extension.hidden_size = 252  # 0: no extension blocks
    config.teacher.extension.intermediate_size = 1_024  # of its feed-forward layer
    config.teacher.extension.num_attention_heads = 12  # of its attention
    config.teacher.extension_init = "random"  # as in the paper; copy: of the blocks beside it
    config.teacher.added_word_init = "random"  # as in the paper; pieces: mean of their base pieces
    config.teacher.gate_bias = 0.0  # 0: original and extension begin with equal shares
    config.teacher.hidden_dropout_prob = placeholder(float)  # None: the checkpoint's
    config.teacher.attention_probs_dropout_prob = placeholder(float)  # None: the checkpoint's

    config.student = ConfigDict()
    config.student.init = "random"  # as in the paper; teacher: begins with its teacher's parameters
    config.student.inherit = ConfigDict()  # how, with init=teacher
    # Which teacher layers: uniform (TinyBERT's) | distilbert | listed.
    config.student.inherit.layer_rule = placeholder(str)
    config.student.inherit.layers = placeholder(tuple)  # teacher layers from 0, for listed
    config.student.inherit.feed_forward = placeholder(str)  # of a narrower one: largest | random
    config.student.inherit.extension = placeholder(str)  # teacher: its extension | copy: of blocks
    config.student.inherit.width = placeholder(str)  # equal | energetic: a narrower one is cut
    # The teacher's own: roberta, xlm-roberta, electra, mpnet, modernbert; without extension blocks
    # and pooler. "": BERT, DistilBERT or ALBERT, as the options below say.
    config.student.family = ""
    config.student.num_hidden_layers = 4  # blocks
    config.student.hidden_size = 312  # width
    config.student.num_attention_heads = 12  # of its attention
    config.student.intermediate_size = 1_200  # of its feed-forward layers
    config.student.max_position_embeddings = 512  # longest row, in pieces
    config.student.type_vocab_size = 2  # segment vectors; 0: none, as in DistilBERT
    config.student.has_pooler = True  # False: none, and no next-sentence loss, as in DistilBERT
    config.student.shares_layers = False  # True: one block for all layers, as in ALBERT
    config.student.embedding_size = 0  # width of word vectors, as in ALBERT; 0: hidden_size
    config.student.hidden_act = "gelu"  # gelu | gelu_new
    config.student.hidden_dropout_prob = 0.1  # of embeddings and layers' outputs
    config.student.attention_probs_dropout_prob = 0.1  # of attention weights
    config.student.layer_norm_eps = 1e-12  # of its norms
    config.student.initializer_range = 0.02  # standard deviation of random weights
    config.student.extension = ConfigDict()  # not published; a third of the block, as the teacher's
    config.student.extension.hidden_size = 96  # 0: no extension blocks, an ordinary BERT
    config.student.extension.intermediate_size = 400  # of its feed-forward layer
    config.student.extension.num_attention_heads = 12  # of its attention
    config.student.gate_bias = 0.0  # as the teacher's

    # What only some methods read is None here, for its default: given to another, it is an error.

    # Weight of distillation over the run: linear (1 to 0) | linear_reverse | cosine |
    # cosine_reverse | same | only_distillation | only_adaptation (section 4.4.4).
    config.alpha = placeholder(str)
    config.phases = ConfigDict()  # edad: what late updates may leave out; no paper has it
    config.phases.stop_teacher_below = placeholder(float)  # where alpha is below: no learning
    config.phases.drop_teacher_below = placeholder(float)  # where alpha is below: no imitation

    config.imitation = ConfigDict()  # edad and distillation: changes to TinyBERT's loss
    config.imitation.attention = placeholder(str)  # scores (TinyBERT's) | centred: minus their mean
    config.imitation.attention_weight = placeholder(float)  # of the attention scores' term
    config.imitation.hidden_weight = placeholder(float)  # of the hidden states' term
    config.imitation.soft_weight = placeholder(float)  # of the teacher's guesses at masked pieces
    config.imitation.temperature = placeholder(float)  # of these guesses

    config.triple = ConfigDict()  # triple and triple_adaptation; weights sum to 1
    config.triple.soft = placeholder(float)  # weight of soft targets; DistilBERT has 5 : 2 : 1
    config.triple.mlm = placeholder(float)  # weight of MLM
    config.triple.cosine = placeholder(float)  # weight of the last hidden states' cosine
    config.triple.temperature = placeholder(float)  # of soft targets
    config.triple.positions = placeholder(str)  # where soft targets are compared: masked | all
    # constant, or one of alpha's: the weight of soft targets and cosine together, over the run.
    config.triple.schedule = placeholder(str)

    config.minilm = ConfigDict()
    config.minilm.relation_heads = placeholder(int)  # a divisor of both widths; paper: 48 at 768

    config.epochs = 3.0  # over the rows
    config.max_steps = 0  # updates; 0: as many as the epochs need
    config.batch_size = 128  # rows per update, over all devices
    config.batch_size_per_device = "0"  # instead of batch_size: a number, or auto: as many as fit
    config.memory_gb = 0.0  # what auto may fill on a device; 0: 90% of what it has
    config.accumulate_steps = 1  # micro-batches that a batch is cut into, to save memory

    config.remat = "none"  # blocks: insides of blocks are computed again in the backward pass
    config.attention = "explicit"  # fused: one operation; needs attention dropout of 0

    config.optimizer = ConfigDict()
    config.optimizer.name = "bert_adam"  # bert_adam | adamw
    config.optimizer.teacher_learning_rate = 1e-4  # of the weights that are not frozen
    config.optimizer.student_learning_rate = 1e-4  # of all of its weights
    # Extension blocks and gates learn at teacher_learning_rate times this.
    config.optimizer.teacher_block_ratio = 1.0
    config.optimizer.schedule = "constant"  # constant | linear | warmup_linear
    config.optimizer.warmup_ratio = 0.1  # of all steps, for warmup_linear
    config.optimizer.b1 = 0.9  # Adam's decay of the mean
    config.optimizer.b2 = 0.999  # Adam's decay of the mean square
    config.optimizer.eps = 1e-6  # Adam's
    config.optimizer.weight_decay = 0.01  # not of biases and norms
    config.optimizer.clip_norm = 1.0  # largest norm of a gradient
    config.optimizer.clip_by = "tensor"  # as the published code; net: over all tensors, as BERT

    config.parallel = ConfigDict()
    config.parallel.engine = "auto"  # pmap in one process, shard_map across several
    config.parallel.coordinator = ""  # host:port of process 0
    config.parallel.process_count = 1  # 0: ask the cluster (Slurm, TPU pods)
    config.parallel.process_index = 0  # of this process, from 0

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 1_000  # 0: only at the end, and at SIGTERM
    config.checkpoint.keep = 2  # how many of the newest stay
    config.checkpoint.directory = ""  # URL to copy checkpoints and metrics to: gs://bucket/run
    config.log_every_steps = 10  # lines of metrics.jsonl; 0: never
    config.progress = True  # whether a bar is shown
    return config
