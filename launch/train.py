# SPDX-License-Identifier: Apache-2.0
r"""From domain text and a general BERT to a small domain encoder, in one command.

    python launch/train.py --config configs/edad.py \
        --config.corpus.files='/data/pmc/*.jsonl' --workdir runs/pmc

Does what is missing: learns the added vocabulary, prepares rows, converts the teacher, trains,
and leaves workdir/student in Hugging Face layout. Run the same command again after a kill, and
it goes on where it stopped. --config.KEY=VALUE overrides any value of the configuration.

With --plan instead of --workdir it says what that would take, hours, memory and disk, and stops.
"""

import sys

from absl import flags
from ml_collections import config_flags

from edad_jax.command import read_with, require_unless, run_command

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration: configs/edad.py is the paper, configs/quickstart.py needs no data.",
    lock_config=True,
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for everything this run makes; given again, the run is resumed."
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
    if PLAN.value:
        from benchmarks.training import config_overrides
        from planning.report import tell

        said, _ = tell(
            CONFIG.value,
            with_updates=True,
            picture=PLAN_OUT.value,
            config_file=config_flags.get_config_filename(flags.FLAGS["config"]),
            overrides=config_overrides(sys.argv[1:]),
        )
        print(said)
        return
    from edad_jax.distillation.train import train

    train(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    run_command(main, required=["config"])
