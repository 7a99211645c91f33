# SPDX-License-Identifier: Apache-2.0
"""A trained model's folder, exported and compared: the one call for programs and notebooks."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edad_jax.export import formats
from edad_jax.export.verification import Verification
from edad_jax.tasks.own_text import own_inputs

AUTO = "auto"  # of keep_float32: the parts that lose most, as many as it takes


def export_model(
    source: str | Path,
    format_name: str = "onnx-int8",
    out: str | Path = "",
    *,
    data: str = "",
    texts: str = "",
    keep_float32: Collection[str] = (),
    verify: bool = True,
) -> Path:
    """Returns the folder that has the model in another format, compared with the trained one.

    Args:
      source: folder or hub id of a fine-tuned model, or of an encoder.
      format_name: one of `formats.FORMATS`.
      out: folder to write; empty: beside the model, with the format in its name.
      data: int8: data of the model's task to compare on; empty: what its run names.
      texts: likewise a .txt file, or tagged data.
      keep_float32: parts of int8 that keep 32 bits, or "auto".
      verify: whether it is compared before it takes its place.

    Raises:
      ValueError: no such model or format, what is at `out` is no export, or the export says
        something else than the trained model.
      OSError: the files cannot be written.
    """
    folder = Path(source).expanduser()
    if not out and not folder.is_dir():
        raise ValueError(f"{source} is no folder, expected one beside which to write; give out=")
    out = Path(out) if out else folder.with_name(f"{folder.name}-{format_name}")
    model = formats.load(str(source))
    options = {"keep_float32": [name for name in keep_float32 if name != AUTO]}
    check = None
    if verify:
        check = make_verification(
            model, format_name, options, data=data, texts=texts, keep_float32=keep_float32
        )
    return formats.export(model, format_name, out, check=check, **options)


def make_verification(
    model: formats.Model,
    format_name: str,
    options: Mapping[str, Any],
    *,
    rows: int = 100,
    text_rows: int = 500,
    data: str = "",
    texts: str = "",
    text_key: str = "",
    label_key: str = "",
    keep_float32: Collection[str] = (),
) -> Verification:
    """Returns what an export is to be compared with.

    Args:
      model: the trained one.
      format_name: of the export.
      options: of `formats.export`, with which it is made.
      rows: random rows to compare float32 on.
      text_rows: texts to compare int8 on, at most.
      data: see `own_text.own_inputs`, as of the next three.
      texts: likewise.
      text_key: likewise.
      label_key: likewise.
      keep_float32: as `export_model` takes it.

    Raises:
      ValueError: int8, and no text is known to compare it on.
    """
    inputs = own_inputs(
        model, text_rows, data=data, texts=texts, text_key=text_key, label_key=label_key
    )
    return Verification(
        model, format_name, inputs, rows=rows, keep_float32=keep_float32, options=options
    )
