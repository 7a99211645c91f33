# SPDX-License-Identifier: Apache-2.0
r"""Text to rows in one process, against the bare tokenizer on the same text.

    python benchmarks/prepare_rows.py --files='/data/medicine/med-0.txt.zst' \
        --tokenizer=/models/bert-base-uncased --megabytes=20

Rows: documents in memory -> sentences, pieces, next-sentence pairs -> rows on disk, as
launch/prepare.py makes them. Bare: `encode_batch_fast` of the `tokenizers` package on the lines of
these documents, and nothing else. Both on one core, in turn, the best of --turns.
"""

import itertools
import os
import tempfile
import time

from absl import flags

from edad_jax.command import run_command

FILES = flags.DEFINE_string("files", None, "Text, as config.corpus.files takes it.")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "Folder or hub id of a BERT tokenizer.")
MEGABYTES = flags.DEFINE_float("megabytes", 20.0, "Of text.", lower_bound=0.1)
TURNS = flags.DEFINE_integer("turns", 3, "How often each is timed.", lower_bound=1)
_LINES = 1_000  # given to the tokenizer at once


def main():
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from edad_jax.data.pairs import make_rows
    from edad_jax.data.rows import RowSettings
    from edad_jax.data.text.corpus import read_documents
    from edad_jax.data.text.files import list_files
    from edad_jax.data.text.reading import ReadReport
    from edad_jax.data.tokenizer import load_tokenizer

    room = [int(1e6 * MEGABYTES.value)]

    def fits(document):
        room[0] -= len(document.encode())
        return room[0] >= 0

    files = list_files(FILES.value.split(","))
    documents = list(itertools.takewhile(fits, read_documents(files, report=ReadReport())))
    if not documents:
        raise ValueError(
            f"got no document of at most {MEGABYTES.value} MB in {FILES.value}; give --megabytes "
            "more or other --files"
        )
    megabytes = sum(len(document.encode()) for document in documents) / 1e6
    tokenizer = load_tokenizer(TOKENIZER.value)
    lines = [line for document in documents for line in document.splitlines() if line.strip()]

    def bare():
        for start in range(0, len(lines), _LINES):
            tokenizer.backend_tokenizer.encode_batch_fast(
                lines[start : start + _LINES], add_special_tokens=False
            )

    def rows():
        with tempfile.TemporaryDirectory() as out:
            settings = RowSettings(heldout_fraction=0.0, seed=0)
            make_rows(documents, TOKENIZER.value, out, settings, workers=0, progress=False)

    seconds = {"bare tokenizer": [], "rows on disk": []}
    for _ in range(TURNS.value):
        for name, work in (("bare tokenizer", bare), ("rows on disk", rows)):
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        print(f"{name}: {megabytes / min(taken):.2f} MB/s ({megabytes:.1f} MB, best of {taken})")
    print(f"rows / bare: {min(seconds['bare tokenizer']) / min(seconds['rows on disk']):.2f}")


if __name__ == "__main__":
    run_command(main, required=["files", "tokenizer"])
