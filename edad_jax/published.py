# SPDX-License-Identifier: Apache-2.0
"""The figures of the EDAD paper's tables 1 to 4, to stand beside ours."""

from collections.abc import Mapping, Sequence

# Piece-level macro F1 with O (see `tasks.scores.paper_metric`), mean and half-width
# of the 95% interval of five seeds, and hours on four RTX 3090. Columns: BC5CDR, BioNLP09, NCBI,
# average. In table 4 the paper writes alpha = 1 and 2 beside its first two rows; by its Eq. 6 they
# are alpha = 0 (adaptation only) and 1 (distillation only).
PAPER = {
    "BERT": ("85.18 ± 0.31", "89.38 ± 0.08", "91.06 ± 0.13", "88.54 ± 0.17", "110M", "-"),
    "oiBioBERT": ("85.53 ± 0.37", "90.09 ± 0.10", "91.18 ± 0.20", "88.93 ± 0.22", "110M", "9.7"),
    "oiSciBERT": ("85.90 ± 0.04", "90.39 ± 0.07", "91.65 ± 0.11", "89.32 ± 0.07", "111M", "10.6"),
    "exBERT": ("86.13 ± 0.16", "91.41 ± 0.09", "91.83 ± 0.19", "89.79 ± 0.15", "152M", "14.1"),
    "BERT_GD": ("83.27 ± 0.10", "87.54 ± 0.08", "90.20 ± 0.13", "87.01 ± 0.10", "15M", "4.6"),
    "oiBioBERT_GD": ("83.53 ± 0.09", "88.47 ± 0.06", "90.49 ± 0.06", "87.50 ± 0.07", "15M", "14.3"),
    "oiSciBERT_GD": ("83.72 ± 0.11", "89.18 ± 0.07", "90.21 ± 0.10", "87.70 ± 0.09", "15M", "15.5"),
    "exBERT_GD": ("83.74 ± 0.16", "90.05 ± 0.13", "90.60 ± 0.07", "88.13 ± 0.12", "22M", "21.6"),
    "EDAD": ("84.15 ± 0.06", "90.26 ± 0.06", "90.68 ± 0.14", "88.36 ± 0.09", "22M", "17.4"),
    "BioBERT": ("88.54 ± 0.21", "91.76 ± 0.20", "92.95 ± 0.12", "91.09 ± 0.18", "109M", "1104"),
    "SciBERT": ("88.32 ± 0.15", "92.03 ± 0.16", "93.03 ± 0.15", "91.13 ± 0.15", "111M", "672"),
    "BioBERT_GD": ("83.95 ± 0.09", "88.62 ± 0.07", "90.05 ± 0.08", "87.54 ± 0.08", "14M", "1108.1"),
    "SciBERT_GD": ("84.56 ± 0.10", "89.75 ± 0.05", "90.89 ± 0.07", "88.40 ± 0.07", "15M", "676.3"),
    "only_adaptation": ("82.20 ± 0.10", "89.39 ± 0.06", "89.51 ± 0.05", "87.03 ± 0.07", "22M", ""),
    "only_distillation": (
        "84.17 ± 0.19", "89.90 ± 0.10", "89.98 ± 0.09", "88.02 ± 0.13", "22M", ""
    ),
    "same": ("84.04 ± 0.10", "89.85 ± 0.14", "90.06 ± 0.02", "87.98 ± 0.11", "22M", ""),
    "linear": ("84.15 ± 0.06", "90.26 ± 0.06", "90.68 ± 0.14", "88.36 ± 0.09", "22M", ""),
    "linear_reverse": ("84.07 ± 0.17", "89.91 ± 0.06", "90.25 ± 0.16", "88.08 ± 0.13", "22M", ""),
    "cosine": ("84.14 ± 0.08", "89.88 ± 0.05", "90.35 ± 0.10", "88.12 ± 0.08", "22M", ""),
    "cosine_reverse": ("83.76 ± 0.08", "89.84 ± 0.06", "90.34 ± 0.10", "87.98 ± 0.08", "22M", ""),
}  # fmt: skip


def published_rows(names: Sequence[str]) -> list[Mapping[str, str]]:
    """Returns the paper's figures for these rows, where it has them, as cells of a table."""
    columns = ("BC5CDR", "BioNLP09", "NCBI-disease", "average", "parameters", "time cost (h)")
    return [
        {"model": name} | dict(zip(columns, PAPER[name], strict=True))
        for name in names
        if name in PAPER
    ]
