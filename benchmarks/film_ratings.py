# SPDX-License-Identifier: Apache-2.0
r"""NSMC's raw film ratings as labelled reviews, split by film.

    python benchmarks/film_ratings.py --ratings=/data/nsmc_ratings.tsv.zst --out=/data/nsmc
    python launch/finetune.py --config configs/sentiment.py --config.data=/data/nsmc \
        --config.model=runs/distilkcbert/student --workdir runs/nsmc

The file has the columns review_id, movie_id, rating (1 to 10) and review. As in NSMC, 1 to 4 is
"negative" and 9 or 10 "positive"; with --classes=3 what lies between is "neutral", else left out.
Every class has as many reviews as the rarest one of its split. NSMC's own split puts reviews of one
film into both of its halves, so scores on these files must not be compared with published ones.
"""

import csv
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

from absl import flags

from edad_jax.command import run_command

RATINGS = flags.DEFINE_string("ratings", None, "Raw ratings: .tsv, compressed or not.")
OUT = flags.DEFINE_string("out", None, "Folder for train.tsv, devel.tsv and test.tsv.")
ENCODING = flags.DEFINE_string("encoding", "utf-8", "Of the ratings; Korean's old one is cp949.")
CLASSES = flags.DEFINE_enum("classes", "2", ["2", "3"], "With or without what lies between.")
_FILES = ("train.tsv", "devel.tsv", "test.tsv")
_COLUMNS = ("review_id", "movie_id", "rating", "review")


def main():
    from edad_jax.data.text.reading import ReadReport
    from edad_jax.files import replaced_folder
    from edad_jax.tasks.data.records import table_records
    from edad_jax.tasks.data.splits import read_text

    path, out = Path(RATINGS.value).expanduser(), Path(OUT.value).expanduser()
    if out.exists() and (not out.is_dir() or {each.name for each in out.iterdir()} - {*_FILES}):
        raise ValueError(f"{out} has other files than {', '.join(_FILES)}; choose another --out")
    report = ReadReport()
    try:
        lines = read_text(path, ENCODING.value, report)
    except ValueError as error:
        raise ValueError(str(error).replace("--config.encoding", "--encoding")) from error
    records = table_records(lines, path.name, "\t", has_header=True)
    for each in records.skipped:
        each.tell(report, "all: rows")
    missing = [name for name in _COLUMNS if name not in records.columns]
    if missing:
        raise ValueError(
            f"{path}: got the columns {', '.join(records.columns)}, expected {', '.join(_COLUMNS)}"
        )
    reviews = defaultdict(lambda: defaultdict(list))  # split -> label -> (order, text)
    for number, row in records.rows:
        where, rating = f"{path.name}:{number}", row["rating"].strip()
        if not rating.isdecimal() or not 1 <= int(rating) <= 10:
            report.add_problem("row skipped: rating", where, f"{rating!r}, expected 1 to 10")
        elif not row["review"].strip():
            report.add_problem("row skipped: empty review", where)
        elif label := _label(int(rating)):
            report.add_document(row["review"])
            split = _split(row["movie_id"])
            reviews[split][label].append((_hash(row["review_id"]), row["review"].strip()))
    with replaced_folder(out) as folder:
        for name in _FILES:
            split = name.removesuffix(".tsv")
            count = _write(folder / name, reviews[split])
            print(f"{split}: {sum(count.values()):,} reviews, {dict(sorted(count.items()))}")
    print(report.summary())


def _label(rating):
    """Returns the class of a rating; "" where it is left out."""
    if rating <= 4:
        return "negative"
    if rating >= 9:
        return "positive"
    return "neutral" if CLASSES.value == "3" else ""


def _split(film):
    """Returns the split of a film; 8:1:1, and the same on every machine."""
    return {8: "devel", 9: "test"}.get(_hash(film) % 10, "train")


def _hash(name):
    return int.from_bytes(hashlib.sha256(name.strip().encode()).digest()[:8])


def _write(path, by_label):
    """Writes as many reviews of each class, in an order of no meaning; returns their counts."""
    least = min((len(by_label[label]) for label in by_label), default=0)
    if len(by_label) != int(CLASSES.value) or not least:
        raise ValueError(
            f"{path.stem}: got reviews of {len(by_label)} classes, expected {CLASSES.value}; "
            "give --ratings of more films"
        )
    chosen = sorted(
        (order, text, label)
        for label in by_label
        for order, text in sorted(by_label[label])[:least]
    )
    with open(path, "w", encoding="utf-8", newline="") as file:
        # Readers of .tsv take quotes for letters, and so do we; a tab in a review is a space.
        writer = csv.writer(
            file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
        )
        writer.writerow(("text", "label"))
        writer.writerows((" ".join(text.split()), label) for _, text, label in chosen)
    return Counter(label for _, _, label in chosen)


if __name__ == "__main__":
    run_command(main, required=["ratings", "out"])
