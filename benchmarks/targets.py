# SPDX-License-Identifier: Apache-2.0
"""The accelerators that a step can be compiled for without having them: what they are and can do.

Figures are the makers' own, for one device: data sheets of the A100 80GB SXM, H100 SXM and H200
SXM (dense, that is without sparsity), and the pages of TPU v5e and v6e in Google's documentation.
Needs no jax.
"""

from typing import NamedTuple

# Dense bfloat16 TFLOP/s by the maker's data sheet; the first name that the device's begins with.
PEAK_TFLOPS = {
    "NVIDIA H200": 989.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100": 989.0,
    "NVIDIA A100": 312.0,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5p": 459.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
}


class Target(NamedTuple):
    """So many devices of a kind."""

    platform: str  # "gpu" or "tpu", as `edad_jax.machine.target_backend` says it
    device: str  # kind: what jax calls it begins with this
    devices: int
    memory_gb: float  # of one device; the same for the next six
    bandwidth_gb: float  # of its memory, in a second
    link_gb: float  # what it sends to the others in a second, all links together
    float32_tflops: float  # without matrix units; 0: it has no such products
    tf32_tflops: float  # products of float32 rounded to TF32; 0: it has none
    clock_ghz: float  # by which a TPU's cycles become seconds; 0 where they are not told
    topology: str  # as jax.experimental.topologies takes it

    @property
    def bfloat16_tflops(self) -> float:
        return PEAK_TFLOPS[self.device]


class _Gpu(NamedTuple):
    """What XLA has to know of a GPU, beside what it may assume of all."""

    name: str
    capability: int
    cores: int
    units: int  # that multiply float32, of a core
    core_memory: int  # shared memory of a core, in bytes; the next two likewise
    block_memory: int  # of it, what one block may ask for
    cache: int
    clock_ghz: float
    memory: int
    bandwidth: int


_GPUS = {
    "NVIDIA H100": _Gpu(
        "NVIDIA H100 80GB HBM3",
        capability=9,
        cores=132,
        units=128,
        core_memory=233_472,
        block_memory=232_448,
        cache=52_428_800,
        clock_ghz=1.98,
        memory=84_942_979_072,
        bandwidth=3_352_320_000_000,
    ),
    "NVIDIA A100": _Gpu(
        "NVIDIA A100-SXM4-80GB",
        capability=8,
        cores=108,
        units=64,
        core_memory=167_936,
        block_memory=166_912,
        cache=41_943_040,
        clock_ghz=1.41,
        memory=85_100_068_864,
        bandwidth=2_039_040_000_000,
    ),
}
_GPUS["NVIDIA H200"] = _GPUS["NVIDIA H100"]._replace(
    name="NVIDIA H200", memory=151_397_597_184, bandwidth=4_800_000_000_000
)


def _gpu(device: str, count: int) -> Target:
    memory, bandwidth, link, float32, tf32 = {
        "NVIDIA A100": (80, 2_039, 300, 19.5, 156),
        "NVIDIA H100": (80, 3_350, 450, 67, 494.5),
        "NVIDIA H200": (141, 4_800, 450, 67, 494.5),
    }[device]
    return Target("gpu", device, count, memory, bandwidth, link, float32, tf32, 0.0, f"1x1x{count}")


def _tpu(device: str, count: int, topology: str) -> Target:
    # The clock is what makes the maker's TFLOP/s of its matrix units: v5e has four of 128 x 128,
    # v6e two of 256 x 256 that its cycles count twice.
    memory, bandwidth, link, clock = {
        "TPU v5 lite": (16, 819, 200, 1.5),
        "TPU v6 lite": (32, 1_640, 448, 1.75),
    }[device]
    return Target("tpu", device, count, memory, bandwidth, link, 0.0, 0.0, clock, topology)


TARGETS = {
    "h100x1": _gpu("NVIDIA H100", 1),
    "h100x8": _gpu("NVIDIA H100", 8),
    "h200x1": _gpu("NVIDIA H200", 1),
    "a100x8": _gpu("NVIDIA A100", 8),
    "v5e-1": _tpu("TPU v5 lite", 1, "v5e:1x1"),
    "v5e-8": _tpu("TPU v5 lite", 8, "v5e:2x4"),
    "v5e-16": _tpu("TPU v5 lite", 16, "v5e:4x4"),
    "v6e-1": _tpu("TPU v6 lite", 1, "v6e:1x1"),
}


def find_target(name: str) -> Target:
    """Returns a target by its name.

    Raises:
      ValueError: there is none of that name.
    """
    if name not in TARGETS:
        raise ValueError(f"got --target={name}, expected one of {', '.join(TARGETS)}")
    return TARGETS[name]


def describe_gpu(device: str) -> str:
    """Returns XLA's GpuTargetConfigProto of a kind of GPU, as text."""
    gpu = _GPUS[device]
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.core_memory}
  shared_memory_per_block_optin: {gpu.block_memory}
  threads_per_core_limit: 2048
  core_count: {gpu.cores}
  fpus_per_core: {gpu.units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {gpu.bandwidth}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {gpu.memory}
  cuda_compute_capability {{ major: {gpu.capability} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{gpu.name}"
"""
