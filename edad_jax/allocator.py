# SPDX-License-Identifier: Apache-2.0
"""Large pages for glibc's malloc, without which XLA on a CPU spends a third of its time faulting.

XLA:CPU asks malloc for the temporaries of each step, one block of some gigabytes, and gives it
back. By default glibc maps such blocks anew each time, in pages of 4 KiB: 1.8 million page faults
an update in configs/edad_small.py, and 6.8 to 7.8 s. (A high mmap_threshold is no help: glibc takes
none above 32 MiB.) From a heap that is never given back, of pages of 2 MiB, there is no fault after
the first update, and it takes 4.8 to 5.0 s (two cores, same minutes, float32 with bfloat16
products). One arena, since only the first has such a heap.
"""

import os
import platform
import sys

TUNABLES = "GLIBC_TUNABLES"
_SETTINGS = (
    "glibc.malloc.hugetlb=1",  # ask for transparent huge pages
    "glibc.malloc.mmap_max=0",  # all from the heap
    "glibc.malloc.arena_max=1",
    f"glibc.malloc.trim_threshold={1 << 36}",  # bytes that may lie idle at its end
)


def restart_with_large_pages() -> None:
    """Starts this program anew with malloc's settings, which glibc reads at the start only.

    Does nothing where they are set already (GLIBC_TUNABLES= switches this off) or where there
    is no glibc. To be called before anything else; the process keeps its number.
    """
    if TUNABLES in os.environ or platform.libc_ver()[0] != "glibc":
        return
    os.environ[TUNABLES] = ":".join(_SETTINGS)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
