# SPDX-License-Identifier: Apache-2.0
r"""What exact match and F1 the right answers get, once pieces have been made of them and back.

    python benchmarks/answer_bounds.py --data=/data/KorQuAD_v1.0_dev.json --scoring=korquad \
        --tokenizer=/models/kcbert-base

No model is asked: the first gold answer goes through rows, windows and the search for the likeliest
pair, as in fine-tuning with configs/squad.py. What is missing to 100% no model with this tokenizer
can reach: answers that begin or end within a piece, or are longer than the longest one allowed.
"""

import numpy as np
from absl import flags

from edad_jax.command import run_command

DATA = flags.DEFINE_string("data", None, "Questions, as configs/squad.py takes them.")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "Folder or hub id of a BERT tokenizer.")
SCORING = flags.DEFINE_enum("scoring", "squad", ["squad", "korquad"], "Whose way to score answers.")
ONLY_TEST = flags.DEFINE_bool("only_test", False, "Of the test split alone; else of all splits.")
_SURE = 50.0  # logit of a right start or end, where all others have 0


def main():
    from configs import squad
    from edad_jax.data.tokenizer import load_tokenizer
    from edad_jax.tasks.answer_scores import answer_scores
    from edad_jax.tasks.data.questions import read_questions
    from edad_jax.tasks.question_rows import best_answers, question_rows

    config = squad.get_config()
    splits, report = read_questions(DATA.value)
    chosen = ["test"] if ONLY_TEST.value else list(splits)
    questions = [question for split in chosen for question in splits[split]]
    rows = question_rows(
        questions,
        load_tokenizer(TOKENIZER.value, option="--tokenizer=/a/local/folder"),
        max_length=config.max_length,
        max_query_length=config.max_query_length,
        overlap=config.overlap,
    )
    found = best_answers(
        questions,
        rows,
        [_right_logits(*row) for row in zip(rows.ids, rows.labels, strict=True)],
        n_best=config.n_best,
        max_answer_length=config.max_answer_length,
    )
    scores = answer_scores(found, [each.gold_texts for each in questions], SCORING.value)
    print(report.summary())
    for note, count in rows.notes.items():
        print(f"  {count:,} {note}")
    print(
        f"{len(questions):,} questions: exact match {scores['exact_match']:.2%}, "
        f"F1 {scores['f1']:.2%}"
    )


def _right_logits(ids, labels):
    """Returns logits [2, pieces] that are sure of the labelled start and end; of [CLS] none."""
    logits = np.zeros((2, len(ids)), np.float32)
    if labels[0] > 0:
        logits[[0, 1], labels] = _SURE
    return logits


if __name__ == "__main__":
    run_command(main, required=["data", "tokenizer"])
