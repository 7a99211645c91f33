# SPDX-License-Identifier: Apache-2.0
"""What this machine is, what this process has taken of it, and what it compiles for.

Needs no jax, but to tell the platform.
"""

import contextlib
import contextvars
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# Where Linux says how much a container may take: cgroups, version 2 and 1.
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_COMPILED_FOR = contextvars.ContextVar("compiled_for", default=None)


def target_backend() -> str:
    """Returns the platform that is compiled for: "cpu", "gpu" or "tpu"; jax's own by default.

    What a net's code chooses by platform asks this, not jax, which says what is here.
    """
    if platform_name := _COMPILED_FOR.get():
        return platform_name
    import jax

    return jax.default_backend()


@contextlib.contextmanager
def compiling_for(platform_name: str) -> Iterator[None]:
    """Lets what is traced in the block be for a platform that need not be here.

    What jax.jit traced before the block is not traced anew in it: make the step inside.
    """
    token = _COMPILED_FOR.set(platform_name)
    try:
        yield
    finally:
        _COMPILED_FOR.reset(token)


def describe_machine(cores: int = 0) -> dict[str, str | int]:
    """Returns machine, processor, cores, system and Python, for the head of a report.

    Args:
      cores: what the measured work was given; 0: all that this process may use.
    """
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": cores or core_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def name_machine(machine: Mapping[str, str | int]) -> str:
    """Returns what `describe_machine` found, in one line."""
    return (
        f"{machine['processor']} ({machine['machine']}), {machine['cores']} core(s), "
        f"{machine['system']}, Python {machine['python']}"
    )


def core_count() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_bfloat16_units() -> bool:
    """Returns whether the CPU multiplies bfloat16 by instructions of its own: AMX or AVX512-BF16.

    Only Linux on x86 tells it; elsewhere the answer is no.
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags.split())


def peak_resident_bytes() -> int:
    """Returns the largest resident size of this process so far.

    Linux tells it twice: what getrusage says includes the process that started this one.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_bytes() -> int | None:
    """Returns the memory that this machine, or the container that this is, has; None: not told."""
    limits = []
    for path in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # cgroup v2 writes "max" where there is none
            limits.append(int(Path(path).read_text(encoding="utf-8")))
    with contextlib.suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


def _processor():
    """Returns the CPU's name, as Linux tells it (x86 and Arm boards differ), or as Python does."""
    for path, key in (("/proc/cpuinfo", "model name"), ("/proc/device-tree/model", "")):
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    if line.startswith(key):
                        return line.partition(":")[2].strip() or line.strip("\0\n")
        except OSError:
            continue
    return platform.processor()
