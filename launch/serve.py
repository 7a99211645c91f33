# SPDX-License-Identifier: Apache-2.0
r"""Serves exported models over HTTP, with a page to try them on.

    pip install -c constraints.txt -e '.[serve]'
    python launch/serve.py --models student=runs/ner/model-onnx-int8,teacher=runs/teacher/model-onnx

Folders are those of launch/export.py. Requests that come together are read together; what is too
slow, too large, too long or too much is refused (408, 413, 422, 429). Of long requests a tenth of a
second is read at a time, so that short ones need not wait, and what nobody waits for any longer is
dropped. /openapi.json has the interface (/docs shows it), /metrics what Prometheus
reads.
"""

from pathlib import Path

from absl import flags

from edad_jax.command import run_command

MODELS = flags.DEFINE_list(
    "models", None, "NAME=FOLDER,..., or only folders; the first is default."
)
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 for all.")
PORT = flags.DEFINE_integer("port", 8000, "Port to listen at; 0: one that is free.")
THREADS = flags.DEFINE_integer("threads", 0, "Of each model; 0: all cores.", lower_bound=0)
MAX_LENGTH = flags.DEFINE_integer(
    "max_length",
    0,
    "Pieces of a window; 0: 128, or as the model says. Models of configs/squad.py: 384.",
    lower_bound=0,
)
OVERLAP = flags.DEFINE_integer(
    "overlap", None, "Pieces that windows share; a quarter of them. configs/squad.py: 128."
)
BODY = flags.DEFINE_integer("body_bytes", 1_000_000, "Largest body.", lower_bound=1)
BODY_SECONDS = flags.DEFINE_float("body_seconds", 10.0, "For a body to come.", lower_bound=0.001)
TEXT = flags.DEFINE_integer("text_characters", 100_000, "Longest text.", lower_bound=1)
TEXTS = flags.DEFINE_integer("texts", 64, "Texts of a request.", lower_bound=1)
PIECES = flags.DEFINE_integer(
    "pieces", 50_000, "Word pieces of a request, all its texts together.", lower_bound=1
)
WAITING = flags.DEFINE_integer("waiting", 64, "Requests at once; more get 429.", lower_bound=1)
SHUTDOWN = flags.DEFINE_float(
    "shutdown_seconds",
    30.0,
    "From SIGTERM to the end; what is not answered by then gets 503.",
    lower_bound=0.1,
)


def main():
    try:
        from edad_jax.runtime.limits import Limits
        from edad_jax.runtime.server import serve
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed; pip install -e '.[serve]'") from error
    from edad_jax.runtime.models import open_model

    models = {}
    for entry in MODELS.value:
        # A folder's own name may have a "=" in it, as in lr=1e-4.
        name, _, folder = ("", "", entry) if Path(entry).exists() else entry.rpartition("=")
        name = name or Path(folder).name
        if name in models:
            raise ValueError(f"--models: got {name} twice; give names, as in student=FOLDER")
        models[name] = open_model(
            folder, threads=THREADS.value, max_length=MAX_LENGTH.value, overlap=OVERLAP.value
        )
    limits = Limits(
        body_bytes=BODY.value,
        body_seconds=BODY_SECONDS.value,
        text_characters=TEXT.value,
        texts=TEXTS.value,
        pieces=PIECES.value,
        waiting=WAITING.value,
    )
    serve(
        models,
        limits,
        host=HOST.value,
        port=PORT.value,
        shutdown_seconds=SHUTDOWN.value,
    )


if __name__ == "__main__":
    run_command(main, required=["models"])
