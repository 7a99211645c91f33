# SPDX-License-Identifier: Apache-2.0
"""Large pages for glibc's malloc, without which XLA on a CPU spends a third of its time faulting.

XLA:CPU asks malloc for the temporaries of each step, some gigabytes, and gives them back. By
default glibc maps them anew in pages of 4 KiB: 1.8 million page faults an update in
configs/edad_small.py. With pages of 2 MiB that stay with the process there are 5,000, and an
update takes 4.6 s where it took 7.3 s (two cores, same minute).
"""

import os
import platform
import sys

TUNABLES = "GLIBC_TUNABLES"
_KEEP_ALL = 1 << 36  # bytes; what is freed below this stays with the process
_SETTINGS = (
    "glibc.malloc.hugetlb=1",  # ask for transparent huge pages
    f"glibc.malloc.mmap_threshold={_KEEP_ALL}",
    f"glibc.malloc.trim_threshold={_KEEP_ALL}",
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
