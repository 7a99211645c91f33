# SPDX-License-Identifier: Apache-2.0
"""A frozen weight without a gradient, by the compiled program of a step; here the CPU's."""

from pathlib import Path

import pytest

from benchmarks.frozen import find_gradients, gradient_sums
from benchmarks.hlo import Module
from benchmarks.step import Case, Loop, random_run
from tests.tiny_run import tiny_config

# Of 8 rows of 32 pieces; no width or number of words is as many as these have pieces.
TEACHER, WORDS = (1, 48, 3, 96), 300
HERE = Path(__file__).parent


def config_of(**changes):
    return tiny_config(Path("unused"), parallel__engine="shard_map", **changes)


def program_of(**changes):
    return Module(Loop(Case(config_of(**changes), TEACHER, "adaptation", 1, WORDS)).program_text())


@pytest.fixture(scope="module")
def frozen():
    return random_run(config_of(), "adaptation", TEACHER, words=WORDS).frozen


def test_a_frozen_teacher_has_no_gradient(frozen):
    assert find_gradients(program_of(), frozen, gradient_sums(config_of(), 1)) == []


def test_a_teacher_that_is_trained_is_found_in_products_tables_and_state(frozen):
    program = program_of(teacher__frozen=())
    trained = random_run(config_of(teacher__frozen=()), "adaptation", TEACHER, words=WORDS).trained
    found = "\n".join(find_gradients(program, frozen, gradient_sums(config_of(), 1), trained))
    for layer in ("attention/query", "attention/output", "intermediate", "output"):
        assert f"for teacher/base/layers_0/{layer}/kernel: " in found
    assert "state holds teacher/base/layers_0/attention/value/kernel" in found
    assert "state holds teacher/pooler/dense/kernel" in found
    assert "teacher/base/embeddings/word/embedding: jit" in found
    assert "extension" not in found


def test_on_a_gpu_the_frozen_layers_own_product_is_found():
    program = Module((HERE / "gpu_program.txt").read_text())
    kernel = Shaped((512, 512))
    layers = {"layers_0": {"attention": {"query": {"kernel": kernel}}}}
    words = {"embeddings": {"word": {"embedding": Shaped((30_522, 512))}}}
    frozen = {"teacher": {"base": layers | words}}
    (found,) = find_gradients(program, frozen, {256})
    assert found.startswith(
        "a product makes [512 x 512] for teacher/base/layers_0/attention/query/kernel: "
    )
    # Of another layer, of another net, or summed over something else: not this one's.
    assert not find_gradients(
        program, {"teacher": {"base": {"layers_1": layers["layers_0"]}}}, {256}
    )
    assert not find_gradients(program, {"student": {"base": layers}}, {256})
    assert not find_gradients(program, frozen, {128})


class Shaped:
    """Stands for an array."""

    def __init__(self, shape):
        self.shape = shape
