# SPDX-License-Identifier: Apache-2.0
r"""The data stages alone: domain text -> added vocabulary -> rows on disk.

    python launch/prepare.py --config configs/edad.py \
        --config.corpus.files='/data/pmc/*.jsonl' --out /data/pmc-rows
    python launch/train.py --config configs/edad.py \
        --config.prepared=/data/pmc-rows --workdir runs/pmc

For big corpora: prepare once, on a machine with many cores, and train often. Run the same command
again after a kill, and it goes on where it stopped.

With --plan instead of --out it says what that would take, and stops.

On many machines that see the same folder or bucket, the same bytes as on one. First the vocabulary,
then the parts under any scheduler (in any order, at the same time or not, again after a kill), then
the end, with the same --config and --out each time:

    python launch/prepare.py ... --out /data/pmc-rows --vocabulary
    python launch/prepare.py ... --out /data/pmc-rows --part=3 --parts=64    # 0 to 63
    python launch/prepare.py ... --out /data/pmc-rows --join

Text and --out may lie in object storage: s3://bucket/pmc/*.jsonl.gz, gs://bucket/pmc-rows
(pip install s3fs or gcsfs). docs/many-machines.md has a Slurm array, Ray and a Kubernetes job.
"""

from absl import flags
from ml_collections import config_flags

from edad_jax.command import read_with, require_unless, run_command

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration; corpus, vocabulary, rows, heldout and seed count here.",
    lock_config=True,
)
OUT = flags.DEFINE_string(
    "out", None, "Folder for vocabulary/ and rows/; made if missing. May be a URL (s3://, gs://)."
)
VOCABULARY = flags.DEFINE_bool("vocabulary", False, "Learn the vocabulary and stop.")
PART = flags.DEFINE_integer("part", None, "Make this part of the rows, from 0, of --parts.")
PARTS = flags.DEFINE_integer("parts", None, "How many parts there are, the same for all of them.")
JOIN = flags.DEFINE_bool("join", False, "Put the parts of the rows together: the last command.")
PLAN = flags.DEFINE_bool(
    "plan",
    False,
    "Say what this would take and stop, from a sample of the text: rows, pieces, time, disk, and "
    "advice on the number of words. Nothing is written (docs/pipeline.md).",
)
PLAN_OUT = flags.DEFINE_string(
    "plan_out",
    "",
    "--plan: also draw pieces per word against added words into this .png, .svg or .pdf.",
)
require_unless("out", "plan")
read_with("plan_out", "plan")


def main():
    from pathlib import Path

    from edad_jax.data import prepare
    from edad_jax.files import as_path

    config = CONFIG.value
    if config.prepared:
        raise ValueError(f"got --config.prepared={config.prepared}, expected none: this makes rows")
    if PLAN.value:
        from planning.report import tell

        said, _ = tell(
            config, with_updates=False, picture=PLAN_OUT.value, config_file="", overrides=()
        )
        print(said)
        return
    out = as_path(OUT.value)
    if isinstance(out, Path):
        out = out.expanduser().resolve()
    asked = [VOCABULARY.value, PART.value is not None or PARTS.value is not None, JOIN.value]
    if sum(asked) > 1 or (PART.value is None) != (PARTS.value is None):
        raise ValueError(
            f"got --vocabulary={VOCABULARY.value} --part={PART.value} --parts={PARTS.value} "
            f"--join={JOIN.value}, expected --vocabulary, or --part=I and --parts=N, or --join, or "
            "none of them for all the work on this machine"
        )
    if VOCABULARY.value:
        size = prepare.learn_vocabulary(config, out)["size"]
        print(f"{size:,} pieces; go on with --part=I --parts=N for every I from 0 to N-1")
    elif PARTS.value is not None:
        rows = prepare.prepare_part(config, out, PART.value, PARTS.value)
        print(
            f"part {PART.value} of {PARTS.value}: {rows['train']:,} rows to train on, "
            f"{rows['heldout']:,} held out; once all parts are there: --join"
        )
    else:
        make = prepare.join_prepared if JOIN.value else prepare.prepare_folder
        facts = make(config, out)
        rows = facts["rows"]
        print(
            f"{rows['train']['rows']:,} rows to train on, {rows['heldout']['rows']:,} held out, "
            f"{facts['vocabulary']['size']:,} pieces; train with --config.prepared={OUT.value}"
        )
        if JOIN.value:
            print(f"{out / 'parts'} is not needed any more and may be deleted")


if __name__ == "__main__":
    run_command(main, required=["config"])
