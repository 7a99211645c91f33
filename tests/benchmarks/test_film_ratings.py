# SPDX-License-Identifier: Apache-2.0
"""Raw film ratings to labelled reviews: split by film, as many of each class."""

import pytest

from edad_jax.tasks.data.labelled import read_labelled
from tests.test_launch import assert_dies
from tests.tiny_run import run_command

HEADER = "review_id\tmovie_id\trating\treview"
RATINGS = (1, 4, 5, 8, 9, 10, 10)


def convert(tmp_path, *flags, lines=None):
    if lines is None:
        lines = [
            f'{100 * film + number}\t{film}\t{rating}\t영화 {film} "평 {rating}'
            for film in range(60)
            for number, rating in enumerate(RATINGS)
        ]
        lines += ["1\t2\t11\t좋아요", "1\t2\t \t좋아요", "1\t2\t3\t ", "1\t2\t3"]
    (tmp_path / "ratings.tsv").write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    flags = (f"--ratings={tmp_path}/ratings.tsv", f"--out={tmp_path}/out", *flags)
    return run_command(*flags, script="../benchmarks/film_ratings.py")


@pytest.mark.parametrize("classes", ["2", "3"])
def test_reviews_are_split_by_film_and_balanced(tmp_path, classes):
    done = convert(tmp_path, f"--classes={classes}")
    assert done.returncode == 0, done.stderr
    for words in ("2 x row skipped: rating", "1 x row skipped: empty", "number of fields (3, not"):
        assert words in done.stdout
    splits, report = read_labelled(str(tmp_path / "out"))
    assert set(splits) == {"train", "validation", "test"} and not report.problems
    films = {}
    for split, reviews in splits.items():
        labels = [review.label for review in reviews]
        for label in ("negative", "neutral", "positive")[:: 2 if classes == "2" else 1]:
            assert labels.count(label) * int(classes) == len(labels) > 0
        films[split] = {review.text.split()[1] for review in reviews}
        for review in reviews:
            rating = int(review.text.split()[-1])
            wanted = "negative" if rating < 5 else "positive" if rating > 8 else "neutral"
            assert review.label == wanted and '"' in review.text
    assert not films["train"] & films["test"] and not films["validation"] & films["test"]
    assert len(films["train"]) > len(films["test"])


def test_too_few_films_and_other_columns_are_named(tmp_path):
    done = convert(tmp_path, lines=["1\t2\t3\t나빠요"])
    assert_dies(done, "reviews of 1 classes, expected 2", "--ratings of more films")
    assert not (tmp_path / "out").exists()
    (tmp_path / "ratings.tsv").write_text("id\tdocument\tlabel\n1\t좋아요\t1\n", encoding="utf-8")
    flags = (f"--ratings={tmp_path}/ratings.tsv", f"--out={tmp_path}/out")
    done = run_command(*flags, script="../benchmarks/film_ratings.py")
    assert_dies(done, "got the columns id, document, label")


def test_nothing_else_is_replaced_and_another_encoding_is_named(tmp_path):
    flags = (f"--ratings={tmp_path}/ratings.tsv", f"--out={tmp_path}")
    (tmp_path / "ratings.tsv").write_text(f"{HEADER}\n1\t2\t3\t나빠요\n", encoding="cp949")
    done = run_command(*flags, script="../benchmarks/film_ratings.py")
    assert_dies(done, "has other files than train.tsv", "choose another --out")
    assert (tmp_path / "ratings.tsv").exists()
    done = run_command(flags[0], f"--out={tmp_path}/out", script="../benchmarks/film_ratings.py")
    assert_dies(done, "--encoding=cp949")
    assert "config.encoding" not in done.stderr
