# SPDX-License-Identifier: Apache-2.0
"""A compiled program's text, read: short ones in the form that XLA prints for GPUs and TPUs."""

from pathlib import Path

import pytest

from benchmarks.hlo import Module, Shape, read_shapes
from benchmarks.products import find_products

HERE = Path(__file__).parent
TOKENS = 4 * 64


@pytest.fixture(scope="module")
def gpu():
    return Module((HERE / "gpu_program.txt").read_text())


@pytest.fixture(scope="module")
def tpu():
    return Module((HERE / "tpu_program.txt").read_text())


def products(module):
    return [
        product for operation, _ in module.run() for product in find_products(module, operation)
    ]


def test_shapes_have_type_dimensions_and_bytes():
    scratch = read_shapes("(bf16[16,8]{1,0}, s8[64]{0}, u32[], token[])")
    assert scratch == (
        Shape("bf16", (16, 8), "1,0"), Shape("s8", (64,), "0"), Shape("u32", ()),
    )  # fmt: skip
    assert [shape.bytes for shape in scratch] == [256, 64, 4]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("bf16[32,128,312]{2,1,0:T(8,128)(2,1)}", 32 * 128 * 384 * 2),  # 312 fill three tiles
        ("bf16[32,128,312]{1,2,0:T(8,128)(2,1)}", 32 * 128 * 312 * 2),  # 128 are minor here
        ("f32[5,100]{1,0:T(8,128)}", 8 * 128 * 4),
        ("f32[1000]{0:T(1024)}", 4_000),
        ("f32[32,128]{1,0:T(8,128)S(1)}", 0),  # in the chip's own memory
    ],
)
def test_tiles_of_a_tpu_are_counted_full_and_only_in_hbm(text, size):
    assert read_shapes(text)[0].tiled_bytes == size


def test_a_loop_counts_as_often_as_it_runs_and_names_do_not_count(gpu):
    times = {operation.name: times for operation, times in gpu.run()}
    assert times["loop_update"] == 12 and times["custom-call.1"] == 1
    assert not {"words", "gradient", "weights", "all-reduce-done", "while.1"} & set(times)


def test_scopes_are_as_jax_wrote_them(gpu):
    named = {operation.name: operation for operation in gpu.computations[gpu.entry]}
    assert named["words"].scope == "frozen['teacher']['base']['embeddings']['word']['embedding']"
    # A fusion without a scope has that of what it is made of.
    assert not named["loop_gather_fusion"].scope
    assert gpu.scope(named["loop_gather_fusion"]).endswith("embeddings/word/gather")


def test_products_of_a_gpu_have_types_flops_and_what_they_sum_over(gpu):
    forward, of_scores, of_kernel, attention = products(gpu)
    assert forward.kind == "bfloat16 x bfloat16 -> bfloat16" and not forward.is_float32
    assert forward.flops == 2 * TOKENS * 512 * 512 and forward.summed == 512
    assert of_scores.kind == "float32 x bfloat16 -> float32" and of_scores.is_float32
    assert of_scores.is_batched and of_scores.flops == 2 * 32 * 64**3
    assert of_kernel.kind == "float32 x float32 -> float32, highest precision"
    assert of_kernel.summed == TOKENS and not of_kernel.is_batched
    # 4 rows, 8 heads of 64, 64 pieces.
    assert attention.flops == 4 * 4 * 8 * 64 * 64 * 64 and attention.summed == 0


def test_a_backward_pass_of_cudnns_attention_has_two_and_a_half_times_the_flops():
    text = (HERE / "gpu_program.txt").read_text()
    backward = Module(text.replace("fmhaSoftmax", "fmhaSoftmaxBackward"))
    assert products(backward)[-1].flops == 2.5 * products(Module(text))[-1].flops


def test_products_of_a_tpu_are_convolutions(tpu):
    scores, of_kernel = products(tpu)
    assert scores.is_batched and scores.is_float32
    assert scores.flops == 2 * 32 * 12 * 128 * 128 * 64
    # A window over all rows: what is summed over is the rows' pieces.
    assert of_kernel.summed == 32 * 128 and not of_kernel.is_batched
    assert of_kernel.kind == "bfloat16 x bfloat16 -> float32"


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="without an ENTRY computation"):
        Module("HloModule empty\n")
