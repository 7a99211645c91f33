# SPDX-License-Identifier: Apache-2.0
r"""From raw text and labelled sentences to an int8 model in service, in one command.

    python launch/pipeline.py --config configs/pipeline.py \
        --config.corpus.files='/data/medicine/*.txt.zst' --config.data=/data/NCBI-disease-IOB \
        --config.teacher.checkpoint=/models/e5-small --workdir runs/medicine
    python launch/pipeline.py --config configs/pipeline_quickstart.py --workdir runs/pipeline

Vocabulary and rows, fused training, fine-tuning of base model, teacher and student, export to int8
with verification, speed, and report.html: one page with the whole story, which needs no network.
Every stage is a command of launch/ in a process of its own, with its log beside it. Run the same
command again after a kill: what is done is skipped, and what was killed goes on where it stopped.
A stage whose settings changed is an error that names them; with --redo it runs again, with all
that reads what it made. --config.KEY=VALUE overrides any value of the configuration.

With --plan instead of --workdir it says what that would take, hours, memory and disk, and stops.
"""

import sys

from absl import flags
from ml_collections import config_flags

from edad_jax.command import read_with, require_unless, run_command

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration: configs/pipeline.py, or configs/pipeline_quickstart.py, which needs no data.",
    lock_config=True,
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for everything this makes; given again, what is done is skipped."
)
REDO = flags.DEFINE_bool(
    "redo", False, "Throw away stages whose settings changed, and what reads them, and run them."
)
PLAN = flags.DEFINE_bool(
    "plan",
    False,
    "Say what this would take and stop, from a sample of the text and five updates: rows, time, "
    "memory, disk, the largest batch, and advice. Nothing is written (docs/pipeline.md).",
)
PLAN_OUT = flags.DEFINE_string(
    "plan_out",
    "",
    "--plan: also draw pieces per word against added words into this .png, .svg or .pdf.",
)
require_unless("workdir", "plan")
read_with("plan_out", "plan")


def main():
    from chain.pipeline import plan_pipeline, run_pipeline

    if PLAN.value:
        from benchmarks.training import config_overrides

        print(
            plan_pipeline(
                CONFIG.value,
                picture=PLAN_OUT.value,
                config_file=config_flags.get_config_filename(flags.FLAGS["config"]),
                overrides=config_overrides(sys.argv[1:]),
            )
        )
        return
    print(f"the story: {run_pipeline(CONFIG.value, WORKDIR.value, redo=REDO.value)}")


if __name__ == "__main__":
    run_command(main, required=["config"])
