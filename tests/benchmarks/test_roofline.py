# SPDX-License-Identifier: Apache-2.0
"""The time of a program by the model, against figures worked out by hand."""

from pathlib import Path

import pytest

from benchmarks.collectives import describe_collectives, exposed_seconds
from benchmarks.hlo import Module
from benchmarks.roofline import find_kernels
from benchmarks.targets import TARGETS, describe_gpu, find_target

HERE = Path(__file__).parent
TABLE = 256 * 512 * 4  # bytes of the rows that are looked up
# Two H100 with a tenth of the bandwidth, so that little kernels are above the floor.
SLOW = TARGETS["h100x8"]._replace(devices=2, bandwidth_gb=335.0, link_gb=1.0)


@pytest.fixture(scope="module")
def gpu():
    return Module((HERE / "gpu_program.txt").read_text())


@pytest.fixture(scope="module")
def kernels(gpu):
    return {kernel.operation.name: kernel for kernel in find_kernels(gpu, SLOW)}


def test_a_lookup_moves_its_rows_and_not_the_table(kernels):
    assert kernels["loop_gather_fusion"].bytes == 2 * TABLE + 256 * 4


def test_an_update_in_place_moves_what_is_new(kernels):
    update = kernels["loop_update"]
    assert update.times == 12 and update.bytes == 2 * TABLE + 4


def test_a_product_moves_operands_and_result_and_no_scratch(kernels):
    assert kernels["custom-call.1"].bytes == 2 * (2 * 256 * 512 + 512 * 512)


def test_a_kernel_takes_the_longest_of_bytes_products_and_launch(gpu, kernels):
    assert kernels["loop_gather_fusion"].seconds == pytest.approx(
        (2 * TABLE + 1024) / (335e9 * 0.85)
    )
    assert not kernels["loop_gather_fusion"].is_at_floor
    fast = {k.operation.name: k for k in find_kernels(gpu, TARGETS["h100x1"])}
    assert fast["loop_gather_fusion"].is_at_floor and fast["loop_gather_fusion"].seconds == 2e-6
    flops = 2 * 512 * 512 * 256
    for peaks, peak in (({"tf32_tflops": 1.0}, None), ({"float32_tflops": 0.5}, 0.5e12)):
        slow = {k.operation.name: k for k in find_kernels(gpu, SLOW._replace(**peaks))}
        of_kernel = slow["custom-call.3"].seconds  # it asks for the highest precision
        expected = kernels["custom-call.3"].seconds if peak is None else flops / (0.7 * peak)
        assert of_kernel == pytest.approx(expected)


def test_sums_over_devices_are_hidden_by_the_work_between_start_and_end(gpu, kernels):
    (row,) = describe_collectives(gpu, list(kernels.values()), SLOW)
    assert row["kind"] == "all-reduce" and row["arrays"] == 2
    size = 512 * 512 * 4 + TABLE
    assert row["megabytes"] == size / 1e6
    assert row["seconds"] == pytest.approx(size / (1e9 * 0.85))  # a ring of two sends it once
    assert row["hidden_seconds"] == pytest.approx(12 * kernels["loop_update"].seconds)
    assert row["hidden_seconds"] < row["seconds"]
    assert exposed_seconds([row]) == row["seconds"] - row["hidden_seconds"]
    (fast,) = describe_collectives(gpu, list(kernels.values()), SLOW._replace(link_gb=450.0))
    assert exposed_seconds([fast]) == 0


def test_a_tpus_time_is_its_compilers_cycles():
    module = Module((HERE / "tpu_program.txt").read_text())
    copy, scores, of_kernel = find_kernels(module, TARGETS["v5e-1"])
    assert copy.is_overlapped and copy.seconds == 0 and copy.bytes == 32 * 128 * 312 * 2
    assert scores.seconds == pytest.approx(300_000 / 1.5e9)
    assert of_kernel.seconds == pytest.approx(150_000 / 1.5e9)
    # The copied operand lies on the chip; 312 and 768 fill tiles of 128.
    assert of_kernel.bytes == 2 * 32 * 128 * 768 + 4 * 768 * 384


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_all_that_a_forecast_needs(name):
    target = find_target(name)
    assert target.bfloat16_tflops > 0 and target.memory_gb > 0 and target.bandwidth_gb > 0
    assert target.platform in ("gpu", "tpu") and target.devices == int(
        name.split("-")[-1].split("x")[-1]
    )
    if target.platform == "gpu":
        assert target.device in describe_gpu(target.device)
        assert 0 < target.float32_tflops < target.tf32_tflops < target.bfloat16_tflops
    else:
        # Its clock and its matrix units make the maker's peak: a whole number of units.
        units = target.bfloat16_tflops * 1e3 / (target.clock_ghz * 2 * 128 * 128)
        assert units == pytest.approx(round(units), rel=0.01)


def test_an_h200_is_an_h100_with_more_and_faster_memory():
    h100, h200 = TARGETS["h100x1"], TARGETS["h200x1"]
    assert h200 == h100._replace(device="NVIDIA H200", memory_gb=141, bandwidth_gb=4_800)
    changed = set(describe_gpu("NVIDIA H200").split()) - set(describe_gpu("NVIDIA H100").split())
    assert changed == {"151397597184", "4800000000000", 'H200"'}


def test_an_unknown_target_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="got --target=h900, expected one of h100x1, h100x8"):
        find_target("h900")
