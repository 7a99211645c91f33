# SPDX-License-Identifier: Apache-2.0
r"""Fine-tunes an encoder on a task, with one or several seeds, and scores it.

    python launch/finetune.py --config configs/ner.py --config.model=runs/pmc/student \
        --config.data=/data/NCBI-disease-IOB --config.num_seeds=3 --workdir runs/ncbi

Leaves in the workdir: model/ (Hugging Face layout; the seed that did best on the validation
set), predictions/, summary.json with every seed's scores, metrics.jsonl, tuning.png. Where no
--workdir is given, that is runs/MODEL-DATA: runs/student-NCBI-disease-IOB here.
With --config.teacher=FOLDER the net also learns from a fine-tuned teacher (task distillation).
--config.KEY=VALUE overrides any value of the configuration.
"""

from absl import flags
from ml_collections import config_flags

from edad_jax.command import run_command

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration: configs/ner.py tags words, configs/classify.py labels texts, "
    "configs/squad.py answers questions.",
    lock_config=True,
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder for everything this run makes, runs/MODEL-DATA if none is given; given again, the run "
    "is resumed.",
)


def main():
    from edad_jax.tasks.finetune import default_workdir, finetune

    workdir = WORKDIR.value
    if not workdir:
        workdir = default_workdir(CONFIG.value)
        print(f"--workdir={workdir}", flush=True)
    finetune(CONFIG.value, workdir)


if __name__ == "__main__":
    run_command(main, required=["config"])
