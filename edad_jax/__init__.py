# SPDX-License-Identifier: Apache-2.0
"""edad_jax: one pass from domain text and a general BERT to a small domain encoder.

The path of a batch, in file names:

`data/text/corpus.read_documents` -> `data/pairs.make_rows` (on disk, fixed length, uint16 ids)
-> `data/batches.batch_at(step)` -> **the pmapped step** of `distillation/edad`
{ `data/masking.mask_rows` -> teacher (`models/exbert`) -> `EncoderOutput`; student ->
`EncoderOutput`; `losses`; `training/schedules` alpha(step); one gradient; two optimisers
(`training/optimizer`) } -> `training/metrics` -> `training/checkpoint`. `data/prepare` walks the
first line of this, `distillation/train` the rest, top to bottom.
"""

__version__ = "0.1.0"

# For notebooks: edad_jax.train(config, workdir) and so on. Each is found when it is asked for, so
# that `edad_jax.runtime` needs no jax.
_OFFERED = {
    "train": "distillation.train",
    "finetune": "tasks.finetune",
    "export_model": "tasks.export",
    "Tagger": "runtime.models",
    "Classifier": "runtime.models",
    "Scorer": "runtime.models",
    "QuestionAnswerer": "runtime.models",
    "Encoder": "runtime.models",
    "open_model": "runtime.models",
}


def __getattr__(name: str):
    if name not in _OFFERED:
        raise AttributeError(f"edad_jax has no {name}; it offers {', '.join(_OFFERED)}")
    from importlib import import_module

    return getattr(import_module(f"edad_jax.{_OFFERED[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_OFFERED])
