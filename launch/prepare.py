# SPDX-License-Identifier: Apache-2.0
r"""The data stages alone: domain text -> added vocabulary -> rows on disk.

    python launch/prepare.py --config configs/edad.py \
        --config.corpus.files='/data/pmc/*.jsonl' --out /data/pmc-rows
    python launch/train.py --config configs/edad.py \
        --config.prepared=/data/pmc-rows --workdir runs/pmc

For big corpora: prepare once, on a machine with many cores, and train often. Run the same command
again after a kill, and it goes on where it stopped.
"""

from absl import flags
from ml_collections import config_flags

from edad_jax.command import run_command

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration; corpus, vocabulary, rows, heldout and seed count here.",
    lock_config=True,
)
OUT = flags.DEFINE_string("out", None, "Folder for vocabulary/ and rows/; made if missing.")


def main():
    from edad_jax.data.prepare import prepare

    prepared = prepare(CONFIG.value, OUT.value)
    print(
        f"{len(prepared.train):,} rows to train on, {len(prepared.heldout):,} held out, "
        f"{prepared.vocabulary.size:,} pieces; train with --config.prepared={OUT.value}"
    )


if __name__ == "__main__":
    run_command(main, required=["config", "out"])
