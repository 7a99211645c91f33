# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import pytest

from edad_jax.data.prepare import prepare
from edad_jax.data.tokenizer import load_tokenizer, pieces_in_order
from edad_jax.distillation.examples import fill_gaps
from edad_jax.distillation.result import _result_text
from edad_jax.models import pretrained
from edad_jax.models.exbert import ExBert
from tests.tiny_run import tiny_config


@pytest.fixture(scope="module")
def prepared(finished, tmp_path_factory):
    config = tiny_config(finished.inputs, prepared=str(finished.workdir))
    return prepare(config, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def nets(finished):
    loaded = {net: pretrained.load_model(finished.workdir / net) for net in ("teacher", "student")}
    return {net: (ExBert(sizes, jnp.float32), params) for net, (sizes, params) in loaded.items()}


def test_each_gap_is_a_whole_word_and_both_nets_fill_it_with_a_piece(nets, prepared):
    examples = fill_gaps(nets, prepared, 3)
    assert len(examples) == 3
    tokenizer = load_tokenizer(prepared.tokenizer_dir, option="")
    pieces = set(pieces_in_order(tokenizer.backend_tokenizer))
    assert len({each["word"] for each in examples}) == 3  # no word twice
    for each in examples:
        assert list(each) == ["text", "word", "teacher", "student"]
        assert each["text"].count("___") == 1 and each["word"].isalpha()
        assert {each["word"], each["teacher"], each["student"]} <= pieces
    assert fill_gaps(nets, prepared, 3) == examples
    assert fill_gaps(nets, prepared, 1) == examples[:1]
    assert fill_gaps(nets, prepared, 0) == []


def test_a_net_that_knows_the_word_says_it(nets, prepared):
    """Its MLM bias makes it say one word, whatever it reads."""
    (wanted,) = fill_gaps(nets, prepared, 1)
    model, params = nets["student"]
    number = load_tokenizer(prepared.tokenizer_dir, option="").convert_tokens_to_ids(wanted["word"])
    bias = jnp.asarray(params["mlm"]["bias"]).at[number].set(1e4)
    sure = {"student": (model, params | {"mlm": params["mlm"] | {"bias": bias}})}
    (found,) = fill_gaps(sure, prepared, 1)
    assert found["student"] == found["word"] == wanted["word"]


def test_the_end_of_a_run_shows_them(finished):
    shown = {"text": "a ___ b", "word": "cell", "teacher": "cell", "student": "gene"}
    summary = finished.summary | {"examples": [shown]}
    text = _result_text(finished.workdir, summary, finished.workdir / "training.png")
    assert "held-out text" in text and "a ___ b" in text and "gene" in text
    assert "held-out text" not in _result_text(
        finished.workdir, finished.summary, finished.workdir / "training.png"
    )
