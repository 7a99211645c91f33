# SPDX-License-Identifier: Apache-2.0
r"""Several runs side by side: a picture of their curves over training time, and a table.

    python launch/report.py runs/edad runs/adaptation
    python launch/report.py runs/ner-* --out runs/ner.png

A run is the --workdir that launch/train.py or launch/finetune.py was given; only its metrics.jsonl
and config.json are read, so that a run which still goes on may be looked at. Draws --out, prints
the table (a line for each run) and writes it beside the picture, as runs/report.md here. A panel
of the picture that no run has numbers for is left out, and so is a seed whose loss stopped being
finite.
"""

from absl import flags

from edad_jax.command import run_command

OUT = flags.DEFINE_string(
    "out",
    "runs/report.png",
    "The picture to write: .png, .svg or .pdf; the table is beside it as .md.",
)


def main(workdirs):
    from edad_jax.files import write_file
    from edad_jax.report import comparison

    picture = comparison.plot_runs(OUT.value, workdirs)
    table = comparison.runs_table(workdirs)
    beside = picture.with_suffix(".md")
    write_file(beside, f"{table}\n".encode())
    print(f"{table}\n\n{picture} and {beside.name}")


if __name__ == "__main__":
    run_command(main, required=[], positional=True)
