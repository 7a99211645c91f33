# SPDX-License-Identifier: Apache-2.0
r"""Writes a trained model in the format that something else reads.

    python launch/export.py --model runs/ner/model --format onnx-int8
    python launch/export.py --model runs/ner/model --format onnx-int8 --keep_float32=auto
    python launch/export.py --model runs/ner/model --format onnx --data /data/ner/NCBI-disease-IOB
    python launch/export.py --model runs/ner/model --format onnx-int8 --out runs/ner/static \
        --calibrate /data/ner/NCBI-disease-IOB --data /data/ner/NCBI-disease-IOB

onnx, onnx-int8: a folder for python -m edad_jax.runtime, or for onnxruntime anywhere. stablehlo:
one program for CPU, CUDA and TPU, read by jax.export. hf: Hugging Face layout.
sentence-transformers, transformers.js: as those lay out a folder. Takes encoders and fine-tuned
models, students and teachers, ours and any BERT.

What is written is compared with the trained model before it takes its place: float32 on random
rows, int8 by what it says of texts of the model's task. docs/export.md tells how.
"""

from pathlib import Path

from absl import flags

from edad_jax.command import run_command

MODEL = flags.DEFINE_string("model", None, "Folder or hub id of the trained model.")
FORMAT = flags.DEFINE_enum(
    "format",
    None,
    ["hf", "onnx", "onnx-int8", "stablehlo", "sentence-transformers", "transformers.js"],
    "What for.",
)
INT8 = ["onnx-int8", "transformers.js"]
OUT = flags.DEFINE_string("out", "", "Folder to write; empty: beside the model, with the format.")
REDUCE_RANGE = flags.DEFINE_bool(
    "reduce_range", False, "int8: seven bits, for x86 CPUs without VNNI (before 2019)."
)
KEEP_FLOAT32 = flags.DEFINE_list(
    "keep_float32",
    [],
    "onnx-int8: parts that keep 32 bits (words, 0.qkv, 0.base.output, classifier, 0.*, ...), or "
    "auto: those that lose most, as many as it takes to agree with float32.",
)
NO_VERIFY = flags.DEFINE_bool("no_verify", False, "Write the export without a comparison.")
ROWS = flags.DEFINE_integer("rows", 100, "Random rows to compare float32 on.", lower_bound=1)
TEXTS = flags.DEFINE_string(
    "texts",
    "",
    "onnx-int8: texts to compare on, tagged data or a .txt file; empty: --data's validation split, "
    "--calibrate, or what the run that left the model read.",
)
TEXT_ROWS = flags.DEFINE_integer("text_rows", 500, "Texts to compare int8 on.", lower_bound=1)
DATA = flags.DEFINE_string(
    "data", "", "onnx, onnx-int8: data of the model's task; scores the test split before and after."
)
DATA_ROWS = flags.DEFINE_integer(
    "data_rows", 0, "Examples for --data, drawn at random; 0: all.", lower_bound=0
)
TEXT_KEY = flags.DEFINE_string("text_key", "", "Column of --data with the texts to classify.")
LABEL_KEY = flags.DEFINE_string("label_key", "", "Column of --data with their labels.")
SCORING = flags.DEFINE_enum(
    "scoring",
    "squad",
    ["squad", "korquad"],
    "Whose way to score answers to the questions of --data.",
)
CALIBRATE = flags.DEFINE_string(
    "calibrate",
    "",
    "onnx-int8: texts that fix layers' ranges: tagged data (its training split) or a .txt file.",
)
CALIBRATION_ROWS = flags.DEFINE_integer(
    "calibration_rows", 256, "Texts for --calibrate.", lower_bound=1
)
LICENSE = flags.DEFINE_string(
    "license",
    "",
    "Of the weights, for the card, such as apache-2.0; empty: as --model's card says.",
)
LANGUAGE = flags.DEFINE_string("language", "", "A code such as en, for the card; empty: likewise.")
PUSH = flags.DEFINE_string("push_to_hub", "", "USER/NAME on the hub to put the folder into.")
PRIVATE = flags.DEFINE_bool("private", False, "--push_to_hub: for its owner alone.")


def main():
    for flag, known in (
        (CALIBRATE, INT8),
        (REDUCE_RANGE, INT8),
        (KEEP_FLOAT32, INT8),
        (TEXTS, INT8),
        (DATA, ["onnx", "onnx-int8"]),
    ):
        if flag.value and FORMAT.value not in known:
            expected = " or ".join(known)
            raise ValueError(f"--{flag.name} is for --format={expected}, got {FORMAT.value}")
    if "auto" in KEEP_FLOAT32.value and NO_VERIFY.value:
        raise ValueError("--keep_float32=auto asks the comparison, got --no_verify; leave one out")
    from edad_jax.export import formats
    from edad_jax.tasks import exported
    from edad_jax.tasks.export import AUTO, make_verification

    if PUSH.value:
        from edad_jax.export import hub

        hub.check_push(PUSH.value)
    model = formats.load(MODEL.value)
    if DATA.value and (model.task is None or model.task.activation):
        raise ValueError(
            f"--data is for fine-tuned models, --model={MODEL.value} has no task to score; "
            "leave --data out"
        )
    source = Path(MODEL.value).expanduser()
    if not OUT.value and not source.is_dir():
        raise ValueError(f"--model={MODEL.value} is no folder, so --out=FOLDER must say where to")
    out = Path(OUT.value) if OUT.value else source.with_name(f"{source.name}-{FORMAT.value}")
    formats.check_target(model, FORMAT.value, out)
    if DATA.value:
        exported.check_data(
            model,
            DATA.value,
            text_key=TEXT_KEY.value,
            label_key=LABEL_KEY.value,
            scoring=SCORING.value,
        )
    options = {"reduce_range": REDUCE_RANGE.value}
    if CALIBRATE.value:
        from edad_jax.export import calibration

        calibration.check_reads_texts(model)
        texts = exported.read_texts(CALIBRATE.value, CALIBRATION_ROWS.value)
        options["ranges"] = calibration.measure_ranges(model, texts)
    options["keep_float32"] = [name for name in KEEP_FLOAT32.value if name != AUTO]
    verification = None
    if not NO_VERIFY.value:
        verification = make_verification(
            model,
            FORMAT.value,
            options,
            rows=ROWS.value,
            text_rows=TEXT_ROWS.value,
            data=DATA.value,
            texts=TEXTS.value or CALIBRATE.value,
            text_key=TEXT_KEY.value,
            label_key=LABEL_KEY.value,
            keep_float32=KEEP_FLOAT32.value,
        )
    about = {"license": LICENSE.value or None, "language": LANGUAGE.value or None}
    out = formats.export(model, FORMAT.value, out, check=verification, **about, **options)
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    sizes = {path.name: path.stat().st_size for path in files}
    largest = max(sizes, key=sizes.get)
    print(f"{out}: {largest} has {sizes[largest] / 1e6:.1f} MB")
    if verification:
        print(verification.found.sentence)
    if DATA.value:
        scores = exported.scores_of_both(
            model,
            out,
            DATA.value,
            rows=DATA_ROWS.value,
            text_key=TEXT_KEY.value,
            label_key=LABEL_KEY.value,
            scoring=SCORING.value,
        )
        for name, (before, after) in scores.items():
            print(
                f"{name} on the test split: {before:.2%} before, {after:.2%} after "
                f"({100 * (after - before):+.2f} points)"
            )
    if PUSH.value:
        print(f"pushed to {hub.push(out, PUSH.value, private=PRIVATE.value)}")


if __name__ == "__main__":
    run_command(main, required=["model", "format"])
