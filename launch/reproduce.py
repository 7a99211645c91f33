# SPDX-License-Identifier: Apache-2.0
r"""Reproduces a table of the paper, cell by cell, beside the paper's own figures.

    python launch/reproduce.py --table 2 --scale small --teacher /models/e5-small \
        --corpus '/data/medicine/*.txt.zst' --ner /data/ner

Tables: 1, three ways to adapt a BERT, and their students; 2, two stages against one pass; 3, EDAD
against BioBERT and SciBERT; 4, the schedule of alpha. kcbert-4, -5, -6: nine students of a Korean
BERT, their speed, their accuracy, and both beside other models (--sentiment, --models). pi-2: exact
match, F1 and time of models that answer questions (--models, --squad). triple: which terms of
DistilBERT's triple loss pay.

--scale small takes an hour or two on two CPU cores, --scale paper the paper's sizes and days. Kill
it and start it again: what is finished is kept. Writes table-N.md, .json and .png into --out.
"""

import os
from pathlib import Path

from absl import flags

from edad_jax.command import run_command

TABLES = ["1", "2", "3", "4", "kcbert-4", "kcbert-5", "kcbert-6", "pi-2", "triple"]
TABLE = flags.DEFINE_enum("table", None, TABLES, "Which table.")
SCALE = flags.DEFINE_enum("scale", "small", ["small", "paper"], "Sizes of the runs.")
TEACHER = flags.DEFINE_string(
    "teacher", None, "General BERT to begin with: folder or hub id; bert-base-uncased in the paper."
)
CORPUS = flags.DEFINE_string(
    "corpus",
    None,
    "Domain text: globs or folders, comma-separated; tables kcbert: .txt with a document a line.",
)
NER = flags.DEFINE_string(
    "ner",
    "",
    "Tables 1 to 4: folder that has BC5CDR-IOB/, BioNLP09-IOB/ and NCBI-disease-IOB/; table triple "
    "reads the last, if given.",
)
SENTIMENT = flags.DEFINE_string("sentiment", "", "Tables kcbert-5 and -6: labelled Korean texts.")
LENGTHS = flags.DEFINE_list(
    "lengths",
    ["64", "256"],
    "Tables kcbert-4 and -6: pieces of the rows that are timed; table 6 has the first.",
)
MODELS = flags.DEFINE_list(
    "models", [], "Tables kcbert-6 and pi-2: models, NAME=FOLDER_OR_HUB_ID, comma-separated."
)
SQUAD = flags.DEFINE_string("squad", "", "Table pi-2: questions, as configs/squad.py takes them.")
QUESTIONS = flags.DEFINE_integer(
    "questions",
    None,
    "Table pi-2: how many to ask, drawn at random; 0: all. Small scale: 500, paper: all.",
    lower_bound=0,
)
SCORING = flags.DEFINE_enum(
    "scoring", "squad", ["squad", "korquad"], "Table pi-2: whose way to score answers."
)
SOFT_LABELS_OF = flags.DEFINE_string(
    "soft_labels_of",
    "",
    "Table pi-2: one of --models; the others are fine-tuned with its soft labels too.",
)
BIOBERT = flags.DEFINE_string("biobert", "", "Folder or hub id of BioBERT, for table 3.")
SCIBERT = flags.DEFINE_string("scibert", "", "Folder or hub id of SciBERT, for table 3.")
TRAIN = flags.DEFINE_multi_string(
    "train", [], "A flag for every training run: --train=--config.dtype=mixed."
)
TUNE = flags.DEFINE_multi_string("tune", [], "A flag for every fine-tuning run, likewise.")
WORKDIR = flags.DEFINE_string("workdir", "runs/reproduce", "Folder for the runs.")
OUT = flags.DEFINE_string("out", "docs/results", "Folder for the table.")
DATASETS = flags.DEFINE_list(
    "datasets", ["BC5CDR", "BioNLP09", "NCBI-disease"], "Which of the three to fine-tune on."
)
ROWS = flags.DEFINE_list(
    "rows", [], "Tables 1 to 4: names of the rows to run and to show; empty: all."
)
JOBS = flags.DEFINE_integer(
    "jobs", 1, "Runs at once, each on its share of the CPU's cores.", lower_bound=1
)
ONLY_REPORT = flags.DEFINE_bool("only_report", False, "Train nothing; what is timed is timed anew.")


def main():
    if TABLE.value == "pi-2":
        _main_pi()
        return
    _require(TEACHER, "the model to begin with")
    _require(CORPUS, "text")
    if TABLE.value.startswith("kcbert"):
        _main_kcbert()
        return
    if TABLE.value == "triple":
        _main_triple()
        return
    from reproduction.edad import SCALES, Inputs
    from reproduction.reproduce import read_sizes, reproduce

    _require(NER, "the folder of the three data sets")
    table = int(TABLE.value)
    models = [_path(path) for path in (TEACHER.value, BIOBERT.value, SCIBERT.value)]
    reproduce(
        table,
        SCALE.value,
        SCALES[SCALE.value],
        Inputs(
            teacher=models[0],
            corpus=_corpus(),
            ner=_absolute(NER.value),
            biobert=models[1],
            scibert=models[2],
            sizes=read_sizes(models) if SCALES[SCALE.value].student else {},
        ),
        **_places(),
        train=TRAIN.value,
        tune=TUNE.value,
        datasets=DATASETS.value,
        only_rows=ROWS.value,
        jobs=JOBS.value,
        only_report=ONLY_REPORT.value,
    )
    print((Path(OUT.value).expanduser() / f"table-{table}.md").read_text(encoding="utf-8"))


def _main_kcbert():
    from edad_jax.models.hf_files import local_folder, read_model_json
    from reproduction.kcbert import KC_SCALES, KcInputs
    from reproduction.reproduce_kcbert import reproduce_kcbert

    number, sentiment = int(TABLE.value.removeprefix("kcbert-")), ""
    if number != 4:
        _require(SENTIMENT, "labelled texts")
        sentiment = _data(SENTIMENT)
    teacher = _path(TEACHER.value)
    config = read_model_json(local_folder(teacher, option="--teacher=FOLDER") / "config.json")
    written = reproduce_kcbert(
        number,
        SCALE.value,
        KC_SCALES[SCALE.value],
        KcInputs(
            teacher=teacher,
            corpus=_corpus(),
            sentiment=sentiment,
            positions=config["max_position_embeddings"],
            others=_named_models(),
        ),
        **_places(),
        train=TRAIN.value,
        tune=TUNE.value,
        lengths=_lengths(config["max_position_embeddings"]),
        jobs=JOBS.value,
        only_report=ONLY_REPORT.value,
    )
    print(written.read_text(encoding="utf-8"))


def _lengths(longest):
    """Returns the lengths of --lengths; checked, since they are read when hours have passed."""
    if not LENGTHS.value or not all(
        each.isdecimal() and 0 < int(each) <= longest for each in LENGTHS.value
    ):
        raise ValueError(
            f"got --lengths={','.join(LENGTHS.value)}, expected numbers from 1 to {longest}, the "
            "teacher's positions, comma-separated"
        )
    return [int(each) for each in LENGTHS.value]


def _main_pi():
    from reproduction.raspberry_pi import PI_SCALES, reproduce_pi

    _require(SQUAD, "questions and their contexts")
    questions = {"small": 500, "paper": 0}[SCALE.value]
    written = reproduce_pi(
        _named_models(),
        _data(SQUAD),
        scale_name=SCALE.value,
        **_places(),
        questions=questions if QUESTIONS.value is None else QUESTIONS.value,
        scoring=SCORING.value,
        tune=(*PI_SCALES[SCALE.value], *TUNE.value),
        soft_labels_of=SOFT_LABELS_OF.value,
        jobs=JOBS.value,
        only_report=ONLY_REPORT.value,
    )
    print(written.read_text(encoding="utf-8"))


def _main_triple():
    from reproduction.triple_loss import ABLATION_SCALES, reproduce_ablation

    written = reproduce_ablation(
        SCALE.value,
        ABLATION_SCALES[SCALE.value],
        _path(TEACHER.value),
        _corpus(),
        _absolute(NER.value) if NER.value else "",
        **_places(),
        train=TRAIN.value,
        tune=TUNE.value,
        jobs=JOBS.value,
        only_report=ONLY_REPORT.value,
    )
    print(written.read_text(encoding="utf-8"))


def _places():
    """Returns where the project is, where the cells go and where the table."""
    return {
        "root": Path(__file__).resolve().parents[1],
        "workdir": Path(WORKDIR.value).expanduser().resolve(),
        "out": Path(OUT.value).expanduser().resolve(),
    }


def _corpus():
    """Returns the text's globs and folders from the root, since the cells run elsewhere."""
    return ",".join(_absolute(part) for part in CORPUS.value.split(",") if part.strip())


def _require(flag, meaning):
    if not flag.value:
        raise ValueError(
            f"--{flag.name} is empty, expected {meaning} for table {TABLE.value}: "
            f"give --{flag.name}=..."
        )


def _named_models():
    """Returns name -> model."""
    if any("=" not in each for each in MODELS.value):
        raise ValueError(f"got --models={','.join(MODELS.value)}, expected NAME=FOLDER_OR_HUB_ID")
    return {name: _path(path) for name, path in (each.split("=", 1) for each in MODELS.value)}


def _path(name):
    """Returns the absolute path of what is there, since the cells run elsewhere; a hub id stays."""
    return _absolute(name) if os.path.exists(os.path.expanduser(name)) else name


def _data(flag):
    """Returns the path or hub id of labelled data; a path at which nothing is fails at once."""
    from edad_jax.tasks.data.splits import is_dataset

    try:
        is_dataset(flag.value)
    except ValueError as error:
        raise ValueError(str(error).replace("--config.data", f"--{flag.name}")) from error
    return _path(flag.value)


def _absolute(path):
    return os.path.abspath(os.path.expanduser(path.strip()))


if __name__ == "__main__":
    run_command(main, required=["table"])
