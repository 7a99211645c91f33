# SPDX-License-Identifier: Apache-2.0
"""The settings of malloc that a script restarts itself with."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import os
from edad_jax.allocator import restart_with_large_pages
restart_with_large_pages()
print(os.environ.get("GLIBC_TUNABLES", "none"))
"""
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")


def settings(**changes):
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env=environment | changes,
    )
    return done.stdout.strip()


def test_large_pages_are_the_default():
    assert settings() == settings(EDAD_JAX_KEEP_HEAP="0") == "glibc.malloc.hugetlb=1"


def test_a_kept_heap_is_asked_for():
    assert "mmap_max=0" in settings(EDAD_JAX_KEEP_HEAP="1")


def test_settings_that_are_there_stay():
    assert settings(GLIBC_TUNABLES="glibc.malloc.arena_max=3") == "glibc.malloc.arena_max=3"
    assert settings(GLIBC_TUNABLES="") == ""
