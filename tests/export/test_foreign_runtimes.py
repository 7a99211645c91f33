# SPDX-License-Identifier: Apache-2.0
"""Runtimes of others open what we export and give what ours gives; each where it is installed.

    pip install -e '.[foreign]'                 OpenVINO, sentence-transformers
    EDAD_JAX_OPTIMUM=/other/venv/bin/python     one with optimum-onnx, which wants transformers 4
    npm install --prefix FOLDER @huggingface/transformers onnxruntime-web
    NODE_PATH=FOLDER/node_modules               Node's own variable

docs/export.md has the table of what they open.
"""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from scipy.special import softmax

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export import formats
from edad_jax.runtime.models import open_model
from tests.tiny_exports import tiny_model

KINDS = ("encoder", "tagging", "classification", "answering")
TEXTS = ["The cat sat here today.", "A dog"]
LENGTHS = np.array([17, 9, 5])
MASK = (np.arange(17) < LENGTHS[:, None]).astype(np.int64)


@pytest.fixture(scope="module")
def write(tmp_path_factory, tokenizer_dir):
    """Returns a function that gives (model, folder) of a tiny export, each made once."""
    root = tmp_path_factory.mktemp("foreign")

    @functools.cache
    def model(kind, blocks):
        folder = tiny_model(root / f"{kind}-{blocks}", tokenizer_dir, kind, blocks=blocks)
        return formats.load(folder)

    @functools.cache
    def export(kind, blocks, format_name):
        out = root / f"{kind}-{blocks}-{format_name}"
        return model(kind, blocks), formats.export(model(kind, blocks), format_name, out)

    return export


def make_feed():
    """Returns three rows of a tiny model's pieces, two of them padded."""
    ids = np.random.default_rng(0).integers(5, 60, MASK.shape)
    return {"input_ids": ids, "attention_mask": MASK, "token_type_ids": np.zeros_like(ids)}


def ours(folder, feed):
    """Returns {output: what the project's own runtime gives}."""
    session = open_model(folder, max_length=20).session
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def of_texts(values):
    """Returns what belongs to real pieces, or to whole rows."""
    values = np.asarray(values)
    return values[MASK != 0] if values.shape[:2] == MASK.shape else values


def distance(one, other):
    return np.sqrt(np.mean((of_texts(one) - of_texts(other)) ** 2))


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_openvino_opens_both_files_and_is_as_near_to_float32(write, kind, blocks):
    openvino = pytest.importorskip("openvino")
    feed, given, said = make_feed(), {}, {}
    for form in ("onnx", "onnx-int8"):
        folder = write(kind, blocks, form)[1]
        settings = {
            "INFERENCE_PRECISION_HINT": "f32"
        }  # else bfloat16, where a CPU has units for it
        compiled = openvino.Core().compile_model(str(folder / "model.onnx"), "CPU", settings)
        given[form], said[form] = ours(folder, feed), compiled(feed)
    for name, expected in given["onnx"].items():
        np.testing.assert_allclose(of_texts(said["onnx"][name]), of_texts(expected), atol=2e-5)
        theirs = distance(said["onnx-int8"][name], expected)
        assert 0 < theirs < 1.5 * distance(given["onnx-int8"][name], expected)


OPTIMUM = """
import json, sys, numpy, torch
from optimum import onnxruntime
feed, *folders = sys.argv[1:]
inputs = {name: torch.from_numpy(values) for name, values in numpy.load(feed).items()}
for entry in folders:
    name, folder = entry.split("=", 1)
    model = getattr(onnxruntime, name).from_pretrained(folder)
    outputs = model(**inputs)
    numpy.savez(f"{folder}.npz", **{key: value.numpy() for key, value in outputs.items()})
"""


@pytest.mark.skipif(
    "EDAD_JAX_OPTIMUM" not in os.environ, reason="names no Python with optimum-onnx"
)
def test_optimum_opens_all_kinds(write, tmp_path):
    classes = dict.fromkeys(KINDS, "ORTModelForFeatureExtraction") | {
        "tagging": "ORTModelForTokenClassification",
        "classification": "ORTModelForSequenceClassification",
        "answering": "ORTModelForQuestionAnswering",
    }
    folders = {
        write(kind, blocks, form)[1]: name
        for kind, name in classes.items()
        for blocks in (True, False)
        for form in ("onnx", "onnx-int8")
    }
    np.savez(tmp_path / "feed.npz", **make_feed())
    words = [tmp_path / "feed.npz", *(f"{name}={folder}" for folder, name in folders.items())]
    run([os.environ["EDAD_JAX_OPTIMUM"], "-c", OPTIMUM, *words])
    for folder in folders:
        expected = ours(folder, make_feed())
        with np.load(f"{folder}.npz") as said:
            assert set(said) <= set(expected)
            assert set(said) & {"logits", "start_logits", "last_hidden_state"}
            for name, values in said.items():
                np.testing.assert_allclose(values, expected[name], atol=1e-5, err_msg=folder.name)


def run(words, **environment):
    """Returns what a program prints."""
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.filterwarnings("ignore")  # theirs
def test_sentence_transformers_gives_the_means_of_last_hidden_states(write, blocks):
    theirs = pytest.importorskip("sentence_transformers")
    model, folder = write("encoder", blocks, "sentence-transformers")
    encoder = theirs.SentenceTransformer(str(folder), trust_remote_code=blocks, device="cpu")
    read = load_tokenizer(folder)(TEXTS, padding=True, return_tensors="np")
    ids, mask = read["input_ids"], read["attention_mask"]
    hidden = np.asarray(formats.forward(model, model.params, ids, mask, np.zeros_like(ids))[0])
    means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    expected = means / np.linalg.norm(means, axis=-1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-6)


NODE = """
const { env, pipeline } = require("@huggingface/transformers");
const ort = require("onnxruntime-web");
const fs = require("fs"), path = require("path");
const [root, text, ids, ...folders] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = root;
ort.env.wasm.numThreads = 1;
(async () => {
  const said = {};
  for (const folder of folders) {
    for (const [dtype, file] of [["fp32", "model"], ["q8", "model_quantized"]]) {
      const tag = await pipeline("token-classification", folder, { dtype });
      const pieces = await tag(text, { ignore_labels: [] });
      const bytes = fs.readFileSync(path.join(root, folder, "onnx", `${file}.onnx`));
      const session = await ort.InferenceSession.create(new Uint8Array(bytes),
        { executionProviders: ["wasm"] });
      const row = JSON.parse(ids);
      const shape = [1, row.length];
      const tensor = (each) => new ort.Tensor("int64", BigInt64Array.from(row, each), shape);
      const outputs = await session.run({ input_ids: tensor(BigInt),
        attention_mask: tensor(() => 1n), token_type_ids: tensor(() => 0n) });
      said[`${folder}/onnx/${file}.onnx`] = { logits: Array.from(outputs.logits.data),
        pieces: pieces.map((each) => [each.entity, each.score]) };
    }
  }
  console.log(JSON.stringify(said));
})().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.mark.skipif(
    not shutil.which("node") or not os.environ.get("NODE_PATH"),
    reason="needs Node, and NODE_PATH to name a folder with @huggingface/transformers",
)
def test_transformers_js_and_onnxruntime_web_tag_pieces(write, tmp_path):
    folders = [write("tagging", blocks, "transformers.js")[1] for blocks in (True, False)]
    ids = load_tokenizer(folders[0])(TEXTS[0])["input_ids"]
    (tmp_path / "tag.cjs").write_text(NODE, encoding="utf-8")
    root = f"{folders[0].parent}/"
    names = [folder.name for folder in folders]
    said = json.loads(
        run(["node", tmp_path / "tag.cjs", root, TEXTS[0], json.dumps(ids), *names]).splitlines()[
            -1
        ]
    )
    assert len(said) == 4
    for name, each in said.items():
        session = onnxruntime.InferenceSession(Path(root) / name)
        feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        feed["token_type_ids"] = np.zeros_like(feed["input_ids"])
        expected = session.run(["logits"], feed)[0][0]
        near = 1e-4 if name.endswith("model.onnx") else 0.05 * np.abs(expected).max()
        np.testing.assert_allclose(np.reshape(each["logits"], expected.shape), expected, atol=near)
        labels = json.loads((Path(root) / name).parents[1].joinpath("config.json").read_text())
        sure = softmax(expected[1:-1], axis=-1)  # without [CLS] and [SEP]
        told = [labels["id2label"][str(best)] for best in sure.argmax(-1)]
        if name.endswith("model.onnx"):
            assert [entity for entity, _ in each["pieces"]] == told
            scores = [score for _, score in each["pieces"]]
            np.testing.assert_allclose(scores, sure.max(-1), atol=1e-4)
        else:
            assert len(each["pieces"]) == len(told)
