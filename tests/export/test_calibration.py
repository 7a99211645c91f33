# SPDX-License-Identifier: Apache-2.0
"""Eight-bit steps that real texts fix beforehand."""

import functools

import jax
import numpy as np
import onnx
import pytest

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export import calibration, check, formats
from edad_jax.models.exbert import ExBert
from edad_jax.tasks import exported
from tests.tiny_exports import arrays_of, tiny_model
from tests.tiny_tasks import tiny_sentences, write_tagging

TEXTS = [" ".join(words) for words in tiny_sentences(6)]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory, tokenizer_dir):
    folder = tmp_path_factory.mktemp("calibration") / "model"
    return formats.load(tiny_model(folder, tokenizer_dir, "tagging"))


def test_ranges_are_those_of_what_layers_read(tagger):
    ranges = calibration.measure_ranges(tagger, TEXTS)
    layers, blocks = tagger.config.base.num_hidden_layers, ("base", "extension")
    parts = ("attention", "intermediate", "output")
    expected = {f"{n}.{block}.{part}" for n in range(layers) for block in blocks for part in parts}
    assert set(ranges) == expected | {f"{n}.qkv" for n in range(layers)} | {"classifier"}
    smallest, largest = np.inf, -np.inf
    params = {part: tagger.params[part] for part in ("base", "extension")}
    apply = functools.partial(ExBert(tagger.config, np.float32).apply, method="encode")
    encode = jax.jit(apply)
    for row in load_tokenizer(tagger.source)(TEXTS, truncation=True, max_length=20)["input_ids"]:
        ids = np.array([row], np.int32)
        output = encode({"params": params}, ids, np.zeros_like(ids), ids >= 0)
        smallest = min(smallest, float(output.last_hidden_btd.min()))
        largest = max(largest, float(output.last_hidden_btd.max()))
    assert ranges["classifier"] == pytest.approx((smallest, largest), abs=2e-5)


def test_layers_take_the_steps_of_their_ranges_and_the_model_stays_near(tagger, tmp_path):
    ranges = calibration.measure_ranges(tagger, TEXTS)
    folder = formats.export(tagger, "onnx-int8", tmp_path / "static", ranges=ranges)
    model = onnx.load(folder / "model.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert "DynamicQuantizeMatMul" not in kinds
    assert kinds.count("MatMulIntegerToFloat") == len(ranges)
    smallest, largest = ranges["classifier"]
    (last,) = [n for n in model.graph.node if len(n.input) > 1 and "classifier.k" in n.input[1]]
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    step, zero = arrays[last.input[2]], arrays[last.input[4]]
    assert step == pytest.approx((largest - smallest) / 255)
    assert (smallest / step + zero, largest / step + zero) == pytest.approx((0, 255), abs=0.51)
    options = {"rows": 40, "progress": False}
    assert 1e-4 < check.largest_difference(tagger, "onnx-int8", folder, **options) < 3


def test_a_range_begins_or_ends_at_zero_where_it_lies_beside_it(tagger):
    from edad_jax.export.onnx import build_onnx

    for given, zero in (((2.0, 4.0), 0), ((-4.0, -2.0), 255)):
        ranges = {"classifier": given}
        model = build_onnx(tagger.config, tagger.params, tagger.task, int8=True, ranges=ranges)
        arrays = arrays_of(model)
        assert arrays["zero"] == zero and arrays["step"] == np.float32(4 / 255)


def test_texts_come_from_lines_or_from_the_training_split(tmp_path):
    data = write_tagging(tmp_path / "data", train=9)
    assert sorted(exported.read_texts(str(data), 50)) == sorted(
        " ".join(words) for words in tiny_sentences(9, seed=0)
    )
    (tmp_path / "a.txt").write_text("one\n\n two\nthree\n", encoding="utf-8")
    assert sorted(exported.read_texts(str(tmp_path / "a.txt"), 50)) == [" two", "one", "three"]
    assert len(exported.read_texts(str(tmp_path / "a.txt"), 2)) == 2


def test_nothing_to_calibrate_with_is_told(tagger, tmp_path):
    with pytest.raises(ValueError, match="got no text to calibrate with"):
        calibration.measure_ranges(tagger, [])
    with pytest.raises(ValueError, match="is no file; expected texts"):
        exported.read_texts(str(tmp_path / "nothing.txt"), 2)
    with pytest.raises(ValueError, match="nothing"):
        exported.read_texts(str(tmp_path / "nothing"), 2)


def test_a_model_that_reads_pairs_is_not_calibrated(tmp_path, tokenizer_dir):
    reader = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, "answering"))
    with pytest.raises(ValueError, match="answers questions: .*; export it without --calibrate"):
        calibration.measure_ranges(reader, TEXTS)
