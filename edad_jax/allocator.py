# SPDX-License-Identifier: Apache-2.0
"""Large pages for glibc's malloc, without which XLA on a CPU spends a third of its time faulting.

XLA:CPU asks malloc for the temporaries of each step, one block of some gigabytes, and gives it
back. By default glibc maps such blocks anew each time, in pages of 4 KiB: 1.8 million page faults
an update in configs/edad_small.py, and 6.8 to 7.8 s. In pages of 2 MiB it takes 6.0 s.

From a heap that is never given back there is no fault after the first update, and it takes 4.9 s
(two cores with AMX, same minutes, float32 with bfloat16 products; on a CPU with AVX512-BF16 alone
no gain was seen). But blocks of different size do not find
room in each other's place there: the quick start then has 8.5 GB instead of 3.7 GB at most. So only
who has memory to spare asks for it: EDAD_JAX_KEEP_HEAP=1. (A high mmap_threshold is no help: glibc
takes none above 32 MiB.)
"""

import os
import platform
import sys

TUNABLES = "GLIBC_TUNABLES"
KEEP_HEAP = "EDAD_JAX_KEEP_HEAP"
_LARGE_PAGES = ("glibc.malloc.hugetlb=1",)  # ask for transparent huge pages
_KEPT_HEAP = (
    "glibc.malloc.mmap_max=0",  # all from the heap
    "glibc.malloc.arena_max=1",  # only the first arena has such a heap
    f"glibc.malloc.trim_threshold={1 << 36}",  # bytes that may lie idle at its end
)


def restart_with_large_pages() -> None:
    """Starts this program anew with malloc's settings, which glibc reads at the start only.

    Does nothing where they are set already (GLIBC_TUNABLES= switches this off) or where there
    is no glibc. With EDAD_JAX_KEEP_HEAP=1 the heap is kept: twice the memory. To be
    called before anything else; the process keeps its number.
    """
    if TUNABLES in os.environ or platform.libc_ver()[0] != "glibc":
        return
    keeps_heap = os.environ.get(KEEP_HEAP, "") not in ("", "0")
    os.environ[TUNABLES] = ":".join(_LARGE_PAGES + (_KEPT_HEAP if keeps_heap else ()))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
