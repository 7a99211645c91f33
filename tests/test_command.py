# SPDX-License-Identifier: Apache-2.0
"""What the scripts share: errors without a trace, options by their names, malloc's settings."""

import os
import platform
import re
import subprocess
import sys

import pytest

from tests.tiny_run import environment

SCRIPT = """
import jax
from edad_jax.command import run_command

def main():
    raise jax.errors.JaxRuntimeError({message!r})

run_command(main, required=[])
"""


def run(message):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(message=message)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(GLIBC_TUNABLES=""),
    )


def test_a_product_that_xla_has_not_names_the_option():
    done = run("UNIMPLEMENTED: Unsupported element type for DotThunk::Execute: BF16 x BF16 = F32")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().endswith("give --config.dtype=float32")


def test_other_errors_of_xla_keep_their_trace():
    done = run("INTERNAL: something else")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_the_folder_of_a_user_that_is_not_known_is_told_in_a_line():
    script = "from pathlib import Path\n" + SCRIPT.replace("import jax\n", "")
    script = re.sub("raise .*", "Path('~no.such.user/model').expanduser()", script)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=environment(GLIBC_TUNABLES=""),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "begins with ~ and a user of whom no folder is known" in done.stderr


PLAN_SCRIPT = """
from absl import flags
from edad_jax.command import read_with, run_command

flags.DEFINE_bool("plan", False, "")
flags.DEFINE_string("plan_out", "", "")
read_with("plan_out", "plan")
run_command(lambda: print("works"), required=[])
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan_out=a.png"], "--plan_out is read with --plan only; give that too"),
        (["--plan", "--plan_out=a.png"], "^works"),
    ],
)
def test_an_option_that_would_not_be_read_is_an_error(arguments, message):
    done = subprocess.run(
        [sys.executable, "-c", PLAN_SCRIPT, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(GLIBC_TUNABLES=""),
    )
    assert re.search(message, done.stdout + done.stderr), done.stderr


CONFIG_SCRIPT = """
from ml_collections import config_flags
from edad_jax.command import run_command

config_flags.DEFINE_config_file("config", None, "", lock_config=True)
run_command(lambda: print("works"), required=[])
"""


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        ({"savings": {"stop_teacher_below": 0.1}}, [], "config.savings.* config.phases now"),
        (
            {"masking": {"share": 0.15}},
            [],
            "config.masking.share, .*masking.mlm_probability now",
        ),
        (
            {},
            ["--config.seeds=3"],
            "got --config.seeds, which is called --config.num_seeds now",
        ),
        (
            {},
            ["--config.savings.stop_teacher_below=0.1"],
            "called --config.phases.stop_teacher_below now",
        ),
        ({"seed": 0}, ["--config.seed=3"], "^works"),
    ],
)
def test_an_option_by_its_name_of_before_is_an_error_that_says_the_new_one(
    config, arguments, message, tmp_path
):
    path = tmp_path / "mine.py"
    path.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({config!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", CONFIG_SCRIPT, f"--config={path}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(GLIBC_TUNABLES=""),
    )
    assert re.search(message, done.stdout + done.stderr), done.stderr
    assert "Traceback" not in done.stderr


MALLOC_SCRIPT = """
import os
from edad_jax.command import restart_with_large_pages
restart_with_large_pages()
print(os.environ.get("GLIBC_TUNABLES", "none"))
"""
NEEDS_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")


def settings(**changes):
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", MALLOC_SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env=environment | changes,
    )
    return done.stdout.strip()


@NEEDS_GLIBC
def test_large_pages_are_the_default():
    assert settings() == settings(EDAD_JAX_KEEP_HEAP="0") == "glibc.malloc.hugetlb=1"


@NEEDS_GLIBC
def test_a_kept_heap_is_asked_for():
    assert "mmap_max=0" in settings(EDAD_JAX_KEEP_HEAP="1")


@NEEDS_GLIBC
def test_settings_that_are_there_stay():
    assert settings(GLIBC_TUNABLES="glibc.malloc.arena_max=3") == "glibc.malloc.arena_max=3"
    assert settings(GLIBC_TUNABLES="") == ""
