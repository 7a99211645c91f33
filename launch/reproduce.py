# SPDX-License-Identifier: Apache-2.0
r"""Reproduces a table of the paper, cell by cell, beside the paper's own figures.

    python launch/reproduce.py --table 2 --scale small --teacher /models/e5-small \
        --corpus '/data/medicine/*.txt.zst' --ner /data/ner

Tables: 1, three ways to adapt a BERT, and their students; 2, two stages against one pass; 3, EDAD
against BioBERT and SciBERT; 4, the schedule of alpha. kcbert-4, -5, -6: nine students of a Korean
BERT, their speed, their accuracy, and both beside other models (--sentiment, --models). pi-2: exact
match, F1 and time of models that answer questions (--models, --squad). triple: which terms of
DistilBERT's triple loss pay. claims: what the project claims, as differences over paired runs.

--scale small takes an hour or two on two CPU cores, --scale paper the paper's sizes and days. Kill
it and start it again: what is finished is kept. Writes table-N.md, .json and .png into --out.
"""

import dataclasses

from absl import flags

from edad_jax.command import run_command

TABLES = ["1", "2", "3", "4", "kcbert-4", "kcbert-5", "kcbert-6", "pi-2", "triple", "claims"]

flags.DEFINE_enum("table", None, TABLES, "Which table.")
flags.DEFINE_enum("scale", "small", ["small", "paper"], "Sizes of the runs.")
flags.DEFINE_string(
    "teacher", "", "General BERT to begin with: folder or hub id; bert-base-uncased in the paper."
)
flags.DEFINE_string(
    "corpus",
    "",
    "Domain text: globs or folders, comma-separated; tables kcbert: .txt with a document a line.",
)
flags.DEFINE_string(
    "ner",
    "",
    "Tables 1 to 4: folder that has BC5CDR-IOB/, BioNLP09-IOB/ and NCBI-disease-IOB/; table triple "
    "reads the last, if given.",
)
flags.DEFINE_string("sentiment", "", "Tables kcbert-5 and -6: labelled Korean texts.")
flags.DEFINE_list(
    "lengths",
    ["64", "256"],
    "Tables kcbert-4 and -6: pieces of the rows that are timed; table 6 has the first.",
)
flags.DEFINE_list(
    "models", [], "Tables kcbert-6 and pi-2: models, NAME=FOLDER_OR_HUB_ID, comma-separated."
)
flags.DEFINE_string("squad", "", "Table pi-2: questions, as configs/squad.py takes them.")
flags.DEFINE_integer(
    "questions",
    None,
    "Table pi-2: how many to ask, drawn at random; 0: all. Small scale: 500, paper: all.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "scoring", "squad", ["squad", "korquad"], "Table pi-2: whose way to score answers."
)
flags.DEFINE_string(
    "soft_labels_of",
    "",
    "Table pi-2: one of --models; the others are fine-tuned with its soft labels too.",
)
flags.DEFINE_string("biobert", "", "Folder or hub id of BioBERT, for table 3.")
flags.DEFINE_string("scibert", "", "Folder or hub id of SciBERT, for table 3.")
flags.DEFINE_multi_string(
    "train", [], "A flag for every training run: --train=--config.dtype=bfloat16_matmul."
)
flags.DEFINE_multi_string("tune", [], "A flag for every fine-tuning run (claims: probe), likewise.")
flags.DEFINE_string("workdir", "runs/reproduce", "Folder for the runs.")
flags.DEFINE_string("out", "docs/results", "Folder for the table.")
flags.DEFINE_list(
    "datasets", ["BC5CDR", "BioNLP09", "NCBI-disease"], "Which of the three to fine-tune on."
)
flags.DEFINE_list(
    "rows",
    [],
    "Tables 1 to 4: which rows to run and to show; claims: how they begin; empty: all.",
)
flags.DEFINE_integer("pairs", 5, "Table claims: training runs of each way.", lower_bound=1)
flags.DEFINE_integer(
    "jobs", 1, "Runs at once, each on its share of the CPU's cores.", lower_bound=1
)
flags.DEFINE_bool("only_report", False, "Train nothing; what is timed is timed anew.")


def main():
    from reproduction.driver import reproduce
    from reproduction.table import TableRun

    given = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(TableRun)}
    print(reproduce(TableRun(**given)).read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main, required=["table"])
