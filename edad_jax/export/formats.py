# SPDX-License-Identifier: Apache-2.0
"""A trained model in the format that someone asks for, as a folder of its own."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from edad_jax.data import disk
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export import huggingface, layouts, onnx, pooling
from edad_jax.export.card import ModelCard, Verified, export_readme
from edad_jax.files import SUMS, file_checksum, replaced_folder, write_sums
from edad_jax.models import pretrained
from edad_jax.models.config import ExBertConfig
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier, make_pooler, read_vectors
from edad_jax.models.hf_files import load_checkpoint
from edad_jax.models.init import count_parameters
from edad_jax.models.task import KINDS, Task
from edad_jax.runtime import models

FORMATS = ("hf", "onnx", "onnx-int8", "stablehlo", *layouts.FORMATS)
STABLEHLO_FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
_AGAIN = "exported again by edad_jax"  # what the card of --format hf says, and no other


class Model(NamedTuple):
    """What is exported."""

    source: str
    config: ExBertConfig
    params: dict[str, Any]
    task: Task | None


def load(source: str) -> Model:
    """Returns a fine-tuned model, or the encoder of a pretrained one.

    Raises:
      ValueError: no such model, or a tensor is missing, left over or of another shape.
    """
    architectures = load_checkpoint(source, option="--model=DIR").config.get("architectures") or ()
    ends = tuple(kind.architecture for kind in KINDS.values())
    task = None
    if any(architecture.endswith(ends) for architecture in architectures):
        config, params, task = pretrained.load_task_model(source, option="--model=DIR")
    else:
        config, params, _ = pretrained.load_encoder(source, with_pooler=True, option="--model=DIR")
        if not config.base.has_pooler:  # what a checkpoint has under such names is another head
            params.pop("pooler", None)
    folder = pretrained.tokenizer_folder(source, option="--model=DIR")
    pieces = len(load_tokenizer(folder, option="--model=DIR"))
    return Model(source, *pretrained.cut_padding(config, params, pieces, source), task)


def export(
    model: Model,
    format_name: str,
    out: str | Path,
    *,
    reduce_range: bool = False,
    word_rank: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    keep_float32: Collection[str] = (),
    check: Callable[[Path, str], Verified] | None = None,
    license: str | None = None,
    language: str | None = None,
    card_format: str = "",
) -> Path:
    """Returns the folder, which now has the model's file, config.json and the tokenizer.

    Args:
      model: from `load`.
      format_name: one of FORMATS.
      out: folder to write; an export that was there is replaced when all is written.
      reduce_range: see `onnx.build_onnx`.
      word_rank: likewise; ONNX alone has it.
      ranges: likewise; onnx-int8 alone has them.
      keep_float32: likewise.
      check: called with the folder and its format before it takes its place, such as a
        `verification.Verification`; what it raises leaves all as it was. The two models of
        transformers.js are each in a folder of its own by then.
      license: of the weights, for the card; None: what the trained model's card says.
      language: likewise.
      card_format: what the card calls the format, where this is a part of another; "": as it is.

    Raises:
      ValueError: no such format, the tokenizer does not fit the model, or what is there is no
        export, such as a trained model.
      OSError: the files cannot be written.
    """
    out = check_target(model, format_name, out)
    folder = pretrained.tokenizer_folder(model.source, option="--model=DIR")
    positions = model.config.base.max_position_embeddings
    vectors = None if model.task else pooling.read_pooling(folder, positions=positions)

    if format_name == layouts.TRANSFORMERS_JS:

        def write(part, place):
            options = {"check": check, "license": license, "language": language}
            options |= {"card_format": format_name}
            if part == "onnx-int8":
                options |= {"reduce_range": reduce_range, "ranges": ranges}
                options |= {"keep_float32": keep_float32}
            return export(model, part, place, **options)

        return layouts.write_transformers_js(out, write)
    if format_name == layouts.SENTENCES and model.task is not None:
        raise ValueError(
            f"--format={format_name} is for encoders, which give vectors; --model={model.source} "
            f"is for {model.task.kind}: export the encoder it was fine-tuned from"
        )

    def finish(beside):
        if vectors and format_name in ("hf", layouts.SENTENCES):
            pooling.copy_pooling(folder, beside)
        elif format_name == layouts.SENTENCES:
            layouts.write_sentence_transformers(beside, model.config)
        found = check(beside, format_name) if check else None
        text = export_readme(
            model.source,
            model.config,
            model.task,
            format_name=card_format or format_name,
            mark=_AGAIN,
            found=found,
            license=license,
            language=language,
        )
        (beside / "README.md").write_text(text, encoding="utf-8")

    if format_name in ("hf", layouts.SENTENCES):
        card = ModelCard(out.name, "", {}, {}, {})  # the one that `finish` writes takes its place
        return huggingface.save_model(
            out, model.params, model.config, folder, card=card, task=model.task, check=finish
        )
    load_tokenizer(folder, option="--model=DIR")  # raises for one that the runtime cannot read
    values = huggingface.config_json(model.params, model.config, folder, model.task)
    values.pop("auto_map", None)  # this folder has no torch code
    # The runtime's words: DistilBERT says dim, and RoBERTa counts positions that no piece reads.
    values["hidden_size"] = model.config.base.hidden_size
    values["max_position_embeddings"] = model.config.base.max_position_embeddings
    if values["model_type"] == "exbert":  # which optimum, OpenVINO and transformers.js do not know
        values["model_type"] = "bert"  # the graph is fed and read as a BERT's
        values["architectures"] = [
            name.replace("ExBert", "Bert") for name in values["architectures"]
        ]
    if vectors:
        values["sentence_pooling"] = vectors
    with replaced_folder(out) as beside:
        huggingface.copy_tokenizer(folder, beside, positions=positions)
        # Other models' tokenizers may have as many pieces: the runtime compares this.
        values["tokenizer_sha256"] = file_checksum(beside / "tokenizer.json")
        huggingface.write_config(beside / "config.json", values)
        if format_name == "stablehlo":
            (beside / STABLEHLO_FILE).write_bytes(_stablehlo(model))
        else:
            graph = onnx.build_onnx(
                model.config,
                model.params,
                model.task,
                int8=format_name == "onnx-int8",
                reduce_range=reduce_range,
                word_rank=word_rank,
                ranges=ranges,
                keep_float32=keep_float32,
            )
            (beside / models.MODEL_FILE).write_bytes(graph.SerializeToString())
        finish(beside)
        write_sums(beside)
    return out


def check_target(model: Model, format_name: str, out: str | Path) -> Path:
    """Returns the folder to write, once it is seen that a model of this format can be written.

    Raises:
      ValueError: no such format, what is there is no export, or the folder cannot be written or
        its disk has clearly too little room.
    """
    if format_name not in FORMATS:
        raise ValueError(f"got format {format_name!r}, expected one of {', '.join(FORMATS)}")
    out = Path(out).expanduser()
    folder = pretrained.tokenizer_folder(model.source, option="--model=DIR")
    _check_replaceable(out, folder)
    disk.check_writable(out.absolute().parent, option="--out")
    bytes_each = 1 if format_name == "onnx-int8" else 4  # of a number, at least
    size = bytes_each * count_parameters(model.params)
    disk.check_free(out.absolute().parent, {"the model": size}, option="--out")
    return out


def _check_replaceable(out, source):
    """Raises ValueError where writing `out` would delete more than an exported model."""
    if source.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"{out} has the model that is to be exported; choose another --out")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, expected a folder; choose another --out")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if names and not _is_export(out, names):
        raise ValueError(
            f"{out} has something else than an exported model "
            f"({', '.join(sorted(names)[:3])}, ...); choose another --out"
        )


def _is_export(folder, names):
    """Whether a folder's files are those that `export` writes, all of them."""
    common = {"config.json", SUMS, *huggingface.TOKENIZER_FILES}
    programs = {models.MODEL_FILE, STABLEHLO_FILE}
    card = folder / "README.md"
    if not card.is_file():  # as those of the versions before this one
        return bool(names & programs) and names <= common | programs
    # A trained model has the files of --format hf, but its card tells how it was trained.
    known = common | programs | {"model.safetensors", card.name, huggingface.MODELLING_FILE}
    known |= {*pooling.FILES, *layouts.FILES}
    names = {name for name in names if not (folder / name / "config.json").is_file()}  # 1_Pooling
    return names <= known and _AGAIN in card.read_text("utf-8", "replace")


def output_names(model: Model) -> list[str]:
    """Returns what `forward` gives, in its order; an ONNX file calls its outputs so."""
    if model.task:
        return ["start_logits", "end_logits"] if model.task.kind == "answering" else ["logits"]
    return ["last_hidden_state", *(["pooler_output"] if "pooler" in model.params else [])]


def forward(
    model: Model,
    params: Mapping[str, Any],
    ids_bt: jax.Array,
    mask_bt: jax.Array,
    segments_bt: jax.Array,
) -> tuple[jax.Array, ...]:
    """Returns the model's outputs in float32: see `output_names`."""
    net = ExBert(model.config, jnp.float32)
    encoder = {name: params[name] for name in ("base", "extension") if name in params}
    output = net.apply({"params": encoder}, ids_bt, segments_bt, mask_bt != 0, method="encode")
    hidden = output.last_hidden_btd
    outputs = [hidden]
    if "pooler" in params:
        of_texts = model.task is None or model.task.kind == "classification"
        pooler = make_pooler(model.config.base, jnp.float32)
        outputs.append(
            read_vectors(pooler, params["pooler"], hidden, mask_bt != 0, of_texts=of_texts)
        )
    if not model.task:
        return tuple(outputs)
    classifier = Classifier(model.config.base, len(model.task.labels), jnp.float32)
    variables = {"params": params["classifier"]}
    logits = classifier.apply(variables, outputs[-1], deterministic=True)
    return (logits[..., 0], logits[..., 1]) if model.task.kind == "answering" else (logits,)


def _stablehlo(model):
    """Returns the serialised program: batch and length are free, the weights are inside."""
    longest = model.config.base.max_position_embeddings
    shape = jax.export.symbolic_shape(
        "batch, length", constraints=[f"length <= {longest}", "length >= 2"]
    )
    arguments = [jax.ShapeDtypeStruct(shape, jnp.int32)] * 3
    params = jax.tree.map(jnp.asarray, model.params)
    program = jax.export.export(
        jax.jit(lambda *inputs: forward(model, params, *inputs)), platforms=PLATFORMS
    )(*arguments)
    return program.serialize()
