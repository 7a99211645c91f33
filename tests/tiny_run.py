# SPDX-License-Identifier: Apache-2.0
"""A whole run small enough for tests: text, a teacher on disk, a configuration, real commands."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from configs import edad
from edad_jax.distillation.build import build_run
from edad_jax.distillation.settings import read_settings
from edad_jax.models import convert
from edad_jax.models.config import ExBertConfig
from tests import quick_programs
from tests.tiny_models import random_params, tiny_bert_config
from tests.tiny_text import make_documents, write_tokenizer

ROOT = Path(__file__).parents[1]
ADDED_WORDS = 20
STEPS, SAVE_EVERY, MEASURE_EVERY = 8, 2, 4

_TEACHER = {
    "extension": {"hidden_size": 12, "intermediate_size": 16, "num_attention_heads": 3},
}
_STUDENT = {
    "num_hidden_layers": 1,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 40,
    "extension": {"hidden_size": 6, "intermediate_size": 8, "num_attention_heads": 3},
}


def write_corpus(path: Path, *, documents: int = 60, seed: int = 0) -> Path:
    """Returns a text file of documents with a blank line between them."""
    texts = make_documents(documents, seed=seed, sentences=12)
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return path


def write_teacher(folder: Path) -> Path:
    """Returns a BERT of two layers with all its heads, as Hugging Face tools would leave it."""
    write_tokenizer(folder)
    vocab_size = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    sizes = tiny_bert_config(
        vocab_size=vocab_size, max_position_embeddings=40, initializer_range=0.02
    )
    config = ExBertConfig(base=sizes, extension=None, extension_vocab_size=0)
    values = {"model_type": "bert", "hidden_act": "gelu"} | vars(sizes)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    save_file(convert.to_torch_names(random_params(config), config), folder / "model.safetensors")
    return folder


def change_teacher(folder: Path, changes: dict[str, Any]) -> Path:
    """Returns the teacher after tensors were replaced, or left out where the new one is None."""
    tensors = load_file(folder / "model.safetensors") | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors")
    return folder


def tiny_config(folder: Path, **changes: Any) -> ConfigDict:
    """Returns configs/edad.py, shrunk, for the corpus.txt and the teacher/ in `folder`.

    `changes` are dotted keys with "__" for the dot: optimizer__student_learning_rate=1e30.
    """
    config = edad.get_config()
    config.dtype = "float32"
    config.progress = False
    config.corpus.files = str(folder / "corpus.txt")
    config.vocabulary.size = ADDED_WORDS
    config.rows.max_length = 32
    config.rows.workers = 1
    config.heldout.fraction = 0.2
    config.heldout.max_rows = 20  # no multiple of the batch: the last batch has empty rows
    config.heldout.every_steps = MEASURE_EVERY
    config.heldout.examples = 0
    config.masking.max_predictions_per_seq = 5
    config.teacher.checkpoint = str(folder / "teacher")
    config.teacher.update(_TEACHER)
    config.student.update(_STUDENT)
    config.max_steps = STEPS
    config.batch_size = 8
    config.optimizer.teacher_learning_rate = 1e-2
    config.optimizer.student_learning_rate = 1e-2
    config.checkpoint.every_steps = SAVE_EVERY
    config.log_every_steps = 1
    with config.unlocked():
        config.update_from_flattened_dict(
            {key.replace("__", "."): value for key, value in changes.items()}
        )
    return config


def make_inputs(folder: Path) -> Path:
    """Returns the folder, with what `tiny_config` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    write_corpus(folder / "corpus.txt")
    write_teacher(folder / "teacher")
    return folder


def run_of(config, vocabulary, *, total_steps, rows=None):
    """Returns what a training run with this configuration starts with."""
    return build_run(config, read_settings(config), vocabulary, total_steps=total_steps, rows=rows)


def call_before_step(monkeypatch, number, action):
    """Has the training loop call action() before it takes the batch of step `number`."""
    from edad_jax.distillation import train as train_module

    make = train_module.make_batch_at

    def make_batch_at(rows, **settings):
        batch_at = make(rows, **settings)

        def and_act(step):
            if step == number:
                action()
            return batch_at(step)

        return and_act

    monkeypatch.setattr(train_module, "make_batch_at", make_batch_at)


def write_config_file(path: Path, inputs: Path, **changes: Any) -> Path:
    """Returns path: a configuration file for the command line, as a user writes one."""
    path.write_text(
        "# SPDX-License-Identifier: Apache-2.0\n"
        "from pathlib import Path\n\n"
        "from tests.tiny_run import tiny_config\n\n\n"
        "def get_config():\n"
        f"    return tiny_config(Path({str(inputs)!r}), **{changes!r})\n",
        encoding="utf-8",
    )
    return path


def command(*arguments: str, script: str = "train.py") -> list[str]:
    """Returns the words of the real command."""
    return [sys.executable, str(ROOT / "launch" / script), *arguments]


def environment(
    *, devices: int = 1, programs: str = "", is_filled: bool = False, **more: str
) -> dict[str, str]:
    """Returns the environment of a command: so many CPU devices, quick to compile, no hub.

    Its programs are those in the folder `programs` of `quick_programs`, as a default those of the
    commands of this worker of the session; with `is_filled` it adds its own.
    """
    programs = programs or os.environ.get("PYTEST_XDIST_WORKER", "commands")
    return (
        os.environ
        | quick_programs.cache(programs, is_filled=is_filled)
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": quick_programs.xla_flags(devices),
            "HF_HUB_OFFLINE": "1",
            "MPLBACKEND": "Agg",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "",
        }
        | more
    )


def run_command(
    *arguments: str, script: str = "train.py", **settings: Any
) -> subprocess.CompletedProcess:
    """Returns what the real command left: exit status and text; it has five minutes."""
    return subprocess.run(
        command(*arguments, script=script),
        env=environment(is_filled=True, **settings),
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
    )
