# SPDX-License-Identifier: Apache-2.0
r"""What encoders know of a tagging task before they are fine-tuned: a linear tagger on each.

    python launch/probe.py --model=/models/bert --model=runs/pmc/teacher \
        --data=/data/NCBI-disease-IOB --data=/data/BC5CDR-IOB --workdir runs/probe

The encoder stays as it is; a logistic regression on its word vectors is fitted to the whole
training split, its penalty chosen on the validation split, entity F1 taken on the test split.
There is no seed in it. Minutes for each model and data set on two CPU cores, where fine-tuning
takes hours. With several models each is compared with the first, with a 95% interval over the
choice of test sentences. Leaves probe.md and summary.json in the workdir.
"""

from pathlib import Path

from absl import flags

from edad_jax.command import run_command

MODEL = flags.DEFINE_multi_string("model", None, "Folder or hub id of an encoder; may be repeated.")
DATA = flags.DEFINE_multi_string("data", None, "Tagging data, as for launch/finetune.py; likewise.")
LAYER = flags.DEFINE_multi_integer(
    "layer", [-1], "1: the first block's output, 0: the embeddings, -1: the last block's; likewise."
)
MAX_TRAIN = flags.DEFINE_integer("max_train", 0, "Sentences to fit to; 0: all.", lower_bound=0)
MAX_LENGTH = flags.DEFINE_integer("max_length", 128, "Pieces of a row.", lower_bound=8)
DTYPE = flags.DEFINE_string("dtype", "auto", "As config.dtype of launch/finetune.py.")
WORKDIR = flags.DEFINE_string("workdir", "runs/probe", "Folder for the figures.")


def main():
    from configs import ner
    from edad_jax.data import disk
    from edad_jax.files import write_file, write_json
    from edad_jax.tasks.probe_report import describe, probe_all, summarise

    disk.check_writable(Path(WORKDIR.value), option="--workdir")
    config = ner.get_config()
    config.max_train, config.max_length = MAX_TRAIN.value, MAX_LENGTH.value
    config.dtype = DTYPE.value
    found = probe_all(config, MODEL.value, DATA.value, LAYER.value)
    workdir = Path(WORKDIR.value).expanduser()
    workdir.mkdir(parents=True, exist_ok=True)
    write_file(workdir / "probe.md", f"{describe(found)}\n".encode())
    write_json(workdir / "summary.json", {"probes": summarise(found)})
    print(f"{describe(found)}\n\n{workdir}/probe.md, summary.json")


if __name__ == "__main__":
    run_command(main, required=["model", "data"])
