# SPDX-License-Identifier: Apache-2.0
"""Whole runs of a ModernBERT: it is adapted while one in its own family learns, tags, is exported.

Its tokenizer is byte-level BPE with BERT's special pieces, as the published models have it.
"""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edad_jax import types
from edad_jax.data.batches import Rows, make_batch_at
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.distillation.preflight import check_run
from edad_jax.distillation.settings import check_settings
from edad_jax.distillation.train import train
from edad_jax.export import formats
from edad_jax.models import convert, pretrained
from edad_jax.models.config import ExBertConfig
from edad_jax.models.config_json import sizes_json
from edad_jax.runtime import models
from edad_jax.tasks.finetune import finetune
from edad_jax.training.metrics import read_metrics
from tests.golden_exports import MODERN
from tests.tiny_models import random_params, tiny_bert_config
from tests.tiny_run import run_of, tiny_config, write_corpus
from tests.tiny_tasks import tiny_tuning, write_tagging
from tests.tiny_tokenizers import XLM_R, byte_bpe

LONG = 256  # pieces
SPECIALS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
STUDENT = {
    "family": "modernbert",
    "type_vocab_size": 0,
    "has_pooler": False,
    "hidden_size": 24,
    "layer_norm_eps": 1e-5,
    "extension__hidden_size": 0,
    "init": "teacher",
    "inherit__layer_rule": "distilbert",
}


def write_model(folder):
    """Returns a folder with a random ModernBERT and its tokenizer."""
    folder.mkdir()
    tokenizer = byte_bpe().to_str()
    for theirs, ours in zip(XLM_R, SPECIALS, strict=True):
        tokenizer = tokenizer.replace(json.dumps(theirs), json.dumps(ours))
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    pieces = len(load_tokenizer(folder))
    sizes = tiny_bert_config(
        vocab_size=pieces, max_position_embeddings=40, initializer_range=0.02, **MODERN
    )
    config = ExBertConfig(sizes, None, 0)
    (folder / "config.json").write_text(json.dumps(sizes_json(sizes, extended=False)))
    save_file(convert.to_torch_names(random_params(config), config), folder / "model.safetensors")
    return folder


def run_config(inputs, **changes):
    """Returns a run without extensions, whose student is a ModernBERT of one layer."""
    student = {f"student__{name}": value for name, value in STUDENT.items()}
    options = {
        "vocabulary__size": 0,
        "rows__mode": "single",
        "teacher__extension__hidden_size": 0,
        "teacher__frozen": (),
    }
    return tiny_config(inputs, **(options | student | changes))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with text and a teacher."""
    folder = tmp_path_factory.mktemp("modernbert")
    write_corpus(folder / "corpus.txt")
    write_model(folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def adapted(inputs):
    """The folders of a run of two updates of the fused step, on long rows of several documents."""
    teacher = shutil.copytree(inputs / "teacher", inputs / "long")
    sizes = json.loads((teacher / "config.json").read_text())  # rotations need no table
    (teacher / "config.json").write_text(json.dumps(sizes | {"max_position_embeddings": LONG}))
    options = {
        "teacher__checkpoint": str(teacher),
        "student__max_position_embeddings": LONG,
        "rows__max_length": LONG,
        "rows__packed": True,
        "remat": "blocks",
        "batch_size": 4,  # a row on each device
    }
    config = run_config(
        inputs,
        max_steps=2,
        log_every_steps=1,
        heldout__every_steps=0,
        heldout__examples=1,
        **options,
    )
    summary = train(config, str(inputs / "run"))
    return SimpleNamespace(run=inputs / "run", summary=summary, options=options)


def test_a_modernbert_is_adapted_and_teaches_one_of_its_family_in_the_same_step(inputs, adapted):
    for net, layers in (("teacher", ["full", "sliding"]), ("student", ["full"])):
        values = json.loads((adapted.run / net / "config.json").read_text())
        assert values["architectures"] == ["ModernBertForMaskedLM"]
        assert values["layer_types"] == [f"{kind}_attention" for kind in layers]
        assert values["pad_token_id"] == SPECIALS.index("[PAD]")
        config, params = pretrained.load_model(adapted.run / net)
        assert config.base.modern.window == MODERN["modern"].window
        assert set(params) == {"base", "mlm"}
    before = load_file(inputs / "teacher" / "model.safetensors")
    after = load_file(adapted.run / "teacher" / "model.safetensors")
    assert all(np.any(before[name] != after[name]) for name in after)  # it learned, all of it
    lines = [line for line in read_metrics(adapted.run / "metrics.jsonl") if "loss" in line]
    names = ("teacher/mlm", "student/mlm", "distill/attention", "distill/hidden")
    assert len(lines) == 2
    assert all(np.isfinite(line[name]) and line[name] > 0 for line in lines for name in names)
    assert "nan" not in json.dumps(adapted.summary["heldout"]).lower()


def test_long_rows_hold_many_documents_and_another_run_must_say_so(inputs, adapted, tmp_path):
    rows = Rows(adapted.run / "rows" / "train")
    batch = make_batch_at(rows, batch_size=2, seed=0)(0)
    assert batch.ids_bt.shape == (2, LONG) and batch.documents_bt.max() > 5
    for name in ("train", "heldout"):
        manifest = Rows(adapted.run / "rows" / name).manifest
        assert manifest["packed"] and manifest["tokens"] > 0
    options = adapted.options | {"rows__packed": False, "prepared": str(adapted.run)}
    with pytest.raises(
        ValueError, match="packed=False, but the rows in .* are packed; give .*True"
    ):
        train(run_config(inputs, **options), str(tmp_path / "run"))


def test_a_student_of_the_family_begins_as_layers_of_its_teacher(inputs):
    words = words_of(inputs)
    run = run_of(run_config(inputs, student__intermediate_size=12), words, total_steps=1)
    ours, theirs = run.trained["student"]["base"], run.trained["teacher"]["base"]
    assert set(ours) == {"embeddings", "layers_0", "final_norm"}
    np.testing.assert_array_equal(ours["final_norm"]["scale"], theirs["final_norm"]["scale"])
    for name in ("query", "key", "value", "output"):
        mine, its = (tree["layers_0"]["attention"][name]["kernel"] for tree in (ours, theirs))
        np.testing.assert_array_equal(mine, its)
    # Of the feed-forward layer those units are there that weigh most, each whole.
    parts = ("intermediate", "multiplier", "output")
    inner, multiplier, outer = (theirs["layers_0"][part]["kernel"] for part in parts)
    sizes = [
        np.linalg.norm(each, axis=axis) for each, axis in ((inner, 0), (multiplier, 0), (outer, 1))
    ]
    kept = np.sort(np.argsort(-np.prod(sizes, axis=0), kind="stable")[:12])
    for part, expected in zip(
        parts, (inner[:, kept], multiplier[:, kept], outer[kept]), strict=True
    ):
        np.testing.assert_array_equal(ours["layers_0"][part]["kernel"], expected)


def words_of(inputs):
    """Returns the vocabulary of a run on the tiny teacher's tokenizer."""
    tokenizer = load_tokenizer(inputs / "teacher")
    ids = (tokenizer.mask_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    return types.Vocabulary(len(tokenizer), len(tokenizer), *ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher__extension__hidden_size": 12}, "extension blocks beside ModernBERT's.*size=0"),
        ({"student__extension__hidden_size": 6}, "extension blocks beside ModernBERT's.*size=0"),
        ({"student__family": ""}, "one of student and teacher has ModernBERT's blocks"),
        ({"student__family": "roberta"}, "'roberta' and the teacher is of the family 'modernbert'"),
        ({"student__hidden_size": 12}, "12 wide and the teacher 24: heads with rotary positions"),
        ({"student__inherit__layer_rule": "uniform"}, r"as the teacher's \(1,\).*'distilbert'"),
        ({"student__has_pooler": True}, "got ModernBERT's blocks with a pooler"),
        ({"imitation__attention": "centred"}, "centred.*some layers see only a window"),
    ],
)
def test_what_a_modernbert_cannot_do_is_said_at_once(inputs, changes, message):
    options = {"student__type_vocab_size": 2} if "student__family" in changes else {}
    with pytest.raises(ValueError, match=message):
        run_of(run_config(inputs, **(changes | options)), words_of(inputs), total_steps=1)


def test_a_head_by_regression_is_refused_before_text_is_read(inputs, tmp_path):
    config = run_config(inputs, mlm_head_init="regression")
    with pytest.raises(ValueError, match="an MLM head with biases, and that of a modernbert has"):
        check_run(config, check_settings(config), str(tmp_path))


def test_a_modernbert_learns_to_tag_and_comes_back_as_it_was(inputs, tmp_path):
    data = write_tagging(tmp_path / "words")
    config = tiny_tuning("tagging", inputs / "teacher", data, num_seeds=1, epochs=1)
    finetune(config, str(tmp_path / "run"))
    values = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert values["architectures"] == ["ModernBertForTokenClassification"]
    model = formats.load(str(tmp_path / "run" / "model"))
    assert model.config.base.modern == MODERN["modern"]
    assert set(model.params) == {"base", "pooler", "classifier"}
    out = formats.export(model, "onnx", tmp_path / "onnx")
    tagger = models.open_model(out, max_length=40)
    assert len(tagger.tag_words([["the", "astrocyte", "binds"]])[0]) == 3
    with pytest.raises(ValueError, match="expected max_length from 4 to 40"):
        models.open_model(out, max_length=41)
