# SPDX-License-Identifier: Apache-2.0
r"""Times models as a small machine runs them: latency, throughput, memory, cold start, file size.

    python launch/benchmark_edge.py --models runs/ner/onnx-int8,runs/ner/onnx --out runs/edge
    python launch/benchmark_edge.py --models runs/ner/onnx-int8 --torch bert-base,distilbert \
        --onnx bert-base,distilbert

--models are folders of launch/export.py. --torch needs torch (the dev extra) and takes bert-base,
distilbert and edad-student, the paper's 4 x 312 (all three with random weights), and folders in
Hugging Face layout. --onnx has the same three, with random weights too, written by our exporter in
float32 and in int8. The first model named, torch's
first and ours last, is the one that the others are compared with. All of them are in memory at once
and take turns, so that a machine whose speed drifts is the same for all.
"""

import tempfile
from pathlib import Path

from absl import flags

from edad_jax.command import run_command
from edad_jax.files import read_json

MODELS = flags.DEFINE_list("models", [], "Folders of launch/export.py, onnx or onnx-int8.")
TORCH = flags.DEFINE_list(
    "torch", [], "Models for torch: bert-base, distilbert, edad-student, or folders."
)
ONNX = flags.DEFINE_list("onnx", [], "The same three names: as ONNX in float32 and int8.")
BATCHES = flags.DEFINE_list("batches", ["1", "32"], "Rows of a call.")
LENGTHS = flags.DEFINE_list("lengths", ["32", "128", "512"], "Pieces of a row.")
SECONDS = flags.DEFINE_float(
    "seconds", 3.0, "How long to time each case of each model, all its turns.", lower_bound=0.01
)
TURNS = flags.DEFINE_integer(
    "turns", 5, "How often each model's turn comes, for each case.", lower_bound=1
)
THREADS = flags.DEFINE_integer("threads", 0, "Of each model; 0: all cores.", lower_bound=0)
OUT = flags.DEFINE_string("out", "runs/edge", "Folder for edge.json, edge.md and edge.png.")


def main():
    from benchmarks.timing import TORCH_SIZES

    if not MODELS.value and not TORCH.value and not ONNX.value:
        raise ValueError("got no model, expected --models=FOLDER,... or --torch=bert-base,...")
    unknown = [name for name in TORCH.value if name not in TORCH_SIZES and not _path(name).is_dir()]
    if unknown:
        raise ValueError(
            f"--torch: got {', '.join(unknown)}, expected {', '.join(TORCH_SIZES)} or a folder"
        )
    for folder in MODELS.value:
        if not (_path(folder) / "model.onnx").is_file():
            raise ValueError(
                f"--models: got {folder}, which has no model.onnx; expected a folder of "
                "launch/export.py --format onnx or onnx-int8"
            )
    if set(ONNX.value) - set(TORCH_SIZES):
        raise ValueError(
            f"--onnx: got {', '.join(ONNX.value)}, expected some of {', '.join(TORCH_SIZES)}"
        )
    batches, lengths = _numbers(BATCHES), _numbers(LENGTHS)
    from benchmarks.edge import benchmark_edge
    from benchmarks.turns import Candidate, Cases

    out = Path(OUT.value).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    candidates = [
        Candidate(f"{_name(name)} (torch)", "torch", _source(name), _longest(name))
        for name in TORCH.value
    ]
    with tempfile.TemporaryDirectory(dir=out) as random:  # half a gigabyte for BERT-base
        candidates += _write_random(Path(random))
        for folder in MODELS.value:
            candidates.append(Candidate(_name(folder), "onnx", _source(folder), _longest(folder)))
        benchmark_edge(
            candidates,
            Cases(batches, lengths, SECONDS.value, TURNS.value),
            out=out,
            threads=THREADS.value,
        )
    print((out / "edge.md").read_text(encoding="utf-8"))


def _write_random(folder):
    """Returns the candidates of --onnx, written into a folder."""
    if not ONNX.value:
        return []
    from benchmarks.random_models import SIZES, write_random
    from benchmarks.turns import Candidate

    written = []
    for name in ONNX.value:
        for kind in ("float32", "int8"):
            path = write_random(folder / f"{name}-{kind}", SIZES[name], int8=kind == "int8")
            longest = SIZES[name].base.max_position_embeddings
            written.append(Candidate(f"{name} (ONNX, {kind})", "onnx", str(path), longest))
    return written


def _numbers(flag):
    """Returns the whole numbers of a flag."""
    if not all(each.strip().isdecimal() for each in flag.value):
        raise ValueError(
            f"--{flag.name}: got {','.join(flag.value)}, expected whole numbers such as 1,32"
        )
    return [int(each) for each in flag.value]


def _path(name):
    return Path(name).expanduser()


def _longest(name):
    """Returns the positions that a folder's model has; those of BERT for a name."""
    if not _path(name).is_dir() and name in TORCH.value:
        return 512
    config = read_json(_path(name) / "config.json", expected="the configuration of a model")
    return config["max_position_embeddings"]


def _name(folder):
    path = _path(folder)
    return "/".join(path.parts[-2:]) if path.is_dir() else folder


def _source(name):
    return str(_path(name).resolve()) if _path(name).is_dir() else name


if __name__ == "__main__":
    run_command(main, required=[])
