# SPDX-License-Identifier: Apache-2.0
r"""Makes a tagger smaller in several ways, and says what each of them costs.

    python launch/compress.py --model runs/ner/model --data /data/NCBI-disease-IOB --out runs/small

Each way leaves a folder for edad_jax.runtime: eight bits, only the words that the training split
uses, word vectors of lower rank, half of the extension's units. compression.md and .png have size,
time of a row of 128 pieces on one core, and entity F1 on the test split.
"""

from pathlib import Path

from absl import flags

from edad_jax.command import run_command

MODEL = flags.DEFINE_string("model", None, "Folder or hub id of a fine-tuned tagger.")
DATA = flags.DEFINE_string("data", None, "Its data, as in launch/finetune.py.")
OUT = flags.DEFINE_string("out", None, "Folder for the smaller models and the table.")
SECONDS = flags.DEFINE_float("seconds", 2.0, "How long to time each.", lower_bound=0.01)


def main():
    from benchmarks.compress import compress, variants
    from edad_jax.export import formats

    model = formats.load(MODEL.value)
    out = Path(OUT.value).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    compress(model, DATA.value, out, variants(model), seconds=SECONDS.value)
    print((out / "compression.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main, required=["model", "data", "out"])
