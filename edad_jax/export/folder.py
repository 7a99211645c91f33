# SPDX-License-Identifier: Apache-2.0
"""A trained model's folder, exported: the one call for programs and notebooks."""

from pathlib import Path

from edad_jax.export import formats


def export_model(source: str | Path, format_name: str = "onnx-int8", out: str | Path = "") -> Path:
    """Returns the folder that has the model in another format.

    Args:
      source: folder or hub id of a fine-tuned model, or of an encoder.
      format_name: "onnx", "onnx-int8", "stablehlo" or "hf".
      out: folder to write; empty: beside the model, with the format in its name.

    Raises:
      ValueError: no such model or format, or what is at `out` is no export.
      OSError: the files cannot be written.
    """
    folder = Path(source).expanduser()
    if not out and not folder.is_dir():
        raise ValueError(f"{source} is no folder, expected one beside which to write; give out=")
    out = Path(out) if out else folder.with_name(f"{folder.name}-{format_name}")
    return formats.export(formats.load(str(source)), format_name, out)
