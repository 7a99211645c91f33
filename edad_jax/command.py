# SPDX-License-Identifier: Apache-2.0
"""What the scripts of launch/ share: flags, logging, and errors without a trace."""

import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

_NO_PRODUCT = "Unsupported element type for DotThunk"  # XLA:CPU's words, jax 0.10
_NO_HOME = "Could not determine home directory."  # pathlib's
# Options of before the first release -> what they are called now.
RENAMED = {
    "savings": "phases",
    "masking.share": "masking.mlm_probability",
    "masking.max_predictions": "masking.max_predictions_per_seq",
    "teacher.fresh": "teacher.random_heads",
    "teacher.added_words": "teacher.added_word_init",
    "optimizer.warmup_share": "optimizer.warmup_ratio",
    "seeds": "num_seeds",
    "max_devel": "max_validation",
    "max_query": "max_query_length",
    "longest_answer": "max_answer_length",
}
TUNABLES = "GLIBC_TUNABLES"
KEEP_HEAP = "EDAD_JAX_KEEP_HEAP"
_LARGE_PAGES = ("glibc.malloc.hugetlb=1",)  # ask for transparent huge pages
_KEPT_HEAP = (
    "glibc.malloc.mmap_max=0",  # all from the heap
    "glibc.malloc.arena_max=1",  # only the first arena has such a heap
    f"glibc.malloc.trim_threshold={1 << 36}",  # bytes that may lie idle at its end
)


def run_command(
    work: Callable[..., None], *, required: Sequence[str], positional: bool = False
) -> None:
    """Parses the flags and calls work(), and turns what a user can mend into one message.

    Args:
      work: imports what it needs, so that --help need not wait for jax.
      required: names of flags that must be given.
      positional: whether work takes the arguments that are no flags, as one list; they are an
        error otherwise.
    """
    _round_as_written()
    # That torch is not found, which nobody here needs, is not said in front of every error.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    restart_with_large_pages()
    _find_configs()
    flags.mark_flags_as_required(list(required))

    def main(arguments):
        if len(arguments) > 1 and not positional:
            raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
        _check_keys()
        absl_logging.set_verbosity(absl_logging.WARNING)  # orbax tells much
        for package in ("edad_jax", "planning", "reproduction"):
            logging.getLogger(package).setLevel(logging.INFO)
        try:
            work(*([arguments[1:]] if positional else []))
        except (ValueError, FloatingPointError, OSError) as error:
            sys.exit(f"{type(error).__name__}: {error}")
        except RuntimeError as error:
            if str(error) == _NO_HOME:
                sys.exit(
                    "got a path that begins with ~ and a user of whom no folder is known; give the "
                    "whole path"
                )
            if _NO_PRODUCT not in str(error):
                raise
            sys.exit(
                f"{error}: XLA has no product of bfloat16 for operands that lie so on this CPU; "
                "give --config.dtype=float32"
            )

    app.run(main, flags_parser=_parse_flags)


def read_with(name: str, other: str) -> None:
    """Has a flag be an error where another one, a yes or no, that it belongs to is not given."""
    flags.register_multi_flags_validator(
        [name, other],
        lambda values: values[other] or not values[name],
        message=f"Flag --{name} is read with --{other} only; give that too, or leave it out.",
    )


def require_unless(name: str, other: str) -> None:
    """Has a flag be required, but where another one, a yes or no, is given."""
    flags.register_multi_flags_validator(
        [name, other],
        lambda values: values[other] or values[name] is not None,
        message=f"Flag --{name} must have a value other than None, but with --{other}.",
    )


def _round_as_written():
    """Has XLA store as bfloat16 what is written as bfloat16.

    By default it leaves out the rounding where a float32 reader follows (the sum that is a bias's
    gradient) and so keeps the whole array in float32 for all its readers: on a GPU, more memory
    traffic (`XLA_FLAGS=--xla_allow_excess_precision=true` and `launch/compile.py` tell how much).
    """
    name = "--xla_allow_excess_precision"
    given = os.environ.get("XLA_FLAGS", "")
    if name not in given:
        os.environ["XLA_FLAGS"] = f"{given} {name}=false".strip()


def _find_configs():
    """Lets configurations say `from configs import edad`, wherever they and the user are.

    `python launch/train.py` puts launch/ on the path, but not the folder that has launch/ and
    configs/; an editable install happens to put it there, a plain one does not. Here, in the one
    function that every script runs before it reads a configuration.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)  # None: python -c
    root = Path(script).resolve().parents[1] if script else None
    if root and (root / "configs").is_dir() and str(root) not in sys.path:
        sys.path.insert(0, str(root))


def _parse_flags(arguments):
    """Returns what is left of the arguments; a key that no configuration has ends the program."""
    for argument in arguments[1:]:
        name = argument.lstrip("-").partition("=")[0]
        for old, new in RENAMED.items():
            if name == f"config.{old}" or name.startswith(f"config.{old}."):
                now = f"config.{new}{name.removeprefix(f'config.{old}')}"
                sys.exit(f"got --{name}, which is called --{now} now")
    try:
        return app.parse_flags_with_usage(arguments)
    except ModuleNotFoundError as error:  # a configuration that asks for a package
        sys.exit(str(error))
    except AttributeError as error:
        # ml_collections wraps the KeyError that says "Did you mean ..." in an AttributeError.
        if not error.args or not isinstance(error.args[0], KeyError):
            raise
        sys.exit(f"The configuration has no key {error.args[0].args[0]}")


def _check_keys():
    """Ends the program where a configuration file sets an option by a name of before."""
    for name, flag in flags.FLAGS.flag_values_dict().items():
        for old, new in RENAMED.items() if isinstance(flag, ConfigDict) else ():
            section, _, key = old.rpartition(".")
            if key in (flag.get(section, {}) if section else flag):
                sys.exit(f"the configuration sets {name}.{old}, which is called {name}.{new} now")


def restart_with_large_pages() -> None:
    """Starts this program anew with malloc's settings, which glibc reads at the start only.

    XLA:CPU asks malloc for the temporaries of each step, one block of some gigabytes, and gives it
    back; by default glibc maps such blocks anew each time, in pages of 4 KiB. Large pages save most
    of that. With EDAD_JAX_KEEP_HEAP=1 the heap is kept, which saves all of it and may take twice
    the memory, since blocks of different size do not find room in each other's place. Figures
    stand in docs/performance.md.

    Does nothing where these are set already (GLIBC_TUNABLES= switches this off) or where there
    is no glibc. To be called before anything else; the process keeps its number.
    """
    if TUNABLES in os.environ or platform.libc_ver()[0] != "glibc":
        return
    keeps_heap = os.environ.get(KEEP_HEAP, "") not in ("", "0")
    os.environ[TUNABLES] = ":".join(_LARGE_PAGES + (_KEPT_HEAP if keeps_heap else ()))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
