# SPDX-License-Identifier: Apache-2.0
r"""From domain text and a general BERT to a small domain encoder, in one command.

    python launch/train.py --config configs/edad.py \
        --config.corpus.files='/data/pmc/*.jsonl' --workdir runs/pmc

Does what is missing: learns the added vocabulary, prepares rows, converts the teacher, trains,
and leaves workdir/student in Hugging Face layout. Run the same command again after a kill, and
it goes on where it stopped. --config.KEY=VALUE overrides any value of the configuration.
"""

from absl import flags
from ml_collections import config_flags

from edad_jax.command import run_command

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration: configs/edad.py is the paper, configs/quickstart.py needs no data.",
    lock_config=True,
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for everything this run makes; given again, the run is resumed."
)


def main():
    from edad_jax.distillation.train import train

    train(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    run_command(main, required=["config", "workdir"])
