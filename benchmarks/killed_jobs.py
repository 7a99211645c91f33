# SPDX-License-Identifier: Apache-2.0
"""The commands of the campaign of kills, at tiny size, and what they read."""

from pathlib import Path
from typing import NamedTuple

STEPS, SAVE_EVERY = 24, 4  # of training; fine-tuning: 3 epochs of 6 steps


class Job(NamedTuple):
    """A command, and where it writes."""

    name: str
    arguments: list[str]  # the script, and what follows; {out} is the folder that it fills


def all_jobs(inputs: Path) -> list[Job]:
    """Returns the commands, as a user gives them."""
    export = ["export.py", f"--model={inputs}/model", "--out={out}"]
    return [
        Job("prepare", ["prepare.py", f"--config={inputs}/rows.py", "--out={out}"]),
        Job("train", ["train.py", f"--config={inputs}/training.py", "--workdir={out}"]),
        Job("finetune", ["finetune.py", f"--config={inputs}/tuning.py", "--workdir={out}"]),
        # Eight bits of random weights answer otherwise too often to be compared.
        Job("export-onnx-int8", [*export, "--format=onnx-int8", "--no_verify"]),
        Job("export-hf", [*export, "--format=hf"]),
    ]


def make_inputs(folder: Path, commands: set[str]) -> None:
    """Writes what the commands read: texts, rows, nets with random weights, configurations."""
    from edad_jax.data.prepare import prepare_folder
    from tests import tiny_exports, tiny_run, tiny_tasks
    from tests.tiny_text import write_tokenizer

    folder.mkdir()
    if commands & {"prepare", "train"}:
        tiny_run.make_inputs(folder)
        tiny_run.write_config_file(folder / "rows.py", folder)
    if "train" in commands:
        prepare_folder(tiny_run.tiny_config(folder), folder / "prepared")
        tiny_run.write_config_file(
            folder / "training.py",
            folder,
            prepared=str(folder / "prepared"),
            max_steps=STEPS,
            checkpoint__every_steps=SAVE_EVERY,
            heldout__every_steps=8,
        )
    if "finetune" in commands:
        tiny_tasks.write_exbert(folder / "encoder")
        tiny_tasks.write_tagging(folder / "tagged")
        changes = {"num_seeds": 2, "checkpoint__every_steps": SAVE_EVERY, "checkpoint__keep": 2}
        (folder / "tuning.py").write_text(
            "# SPDX-License-Identifier: Apache-2.0\n"
            "from pathlib import Path\n\n"
            "from tests.tiny_tasks import tiny_tuning\n\n\n"
            "def get_config():\n"
            f"    folder = Path({str(folder)!r})\n"
            "    return tiny_tuning(\n"
            f"        'tagging', folder / 'encoder', folder / 'tagged', **{changes!r}\n"
            "    )\n",
            encoding="utf-8",
        )
    if any(command.startswith("export") for command in commands):
        tiny_exports.save(folder / "model", write_tokenizer(folder / "words"), "tagging")
