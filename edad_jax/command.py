# SPDX-License-Identifier: Apache-2.0
"""What the scripts of launch/ share: flags, logging, and errors without a trace."""

import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence

from absl import app, flags
from absl import logging as absl_logging

_NO_PRODUCT = "Unsupported element type for DotThunk"  # XLA:CPU's words, jax 0.10


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
    restart_with_large_pages()
    flags.mark_flags_as_required(list(required))

    def main(arguments):
        if len(arguments) > 1 and not positional:
            raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
        absl_logging.set_verbosity(absl_logging.WARNING)  # orbax tells much
        for package in ("edad_jax", "reproduction"):
            logging.getLogger(package).setLevel(logging.INFO)
        try:
            work(*([arguments[1:]] if positional else []))
        except (ValueError, FloatingPointError, OSError) as error:
            sys.exit(f"{type(error).__name__}: {error}")
        except RuntimeError as error:
            if _NO_PRODUCT not in str(error):
                raise
            sys.exit(
                f"{error}: XLA has no product of bfloat16 for operands that lie so on this CPU; "
                "give --config.dtype=float32"
            )

    app.run(main, flags_parser=_parse_flags)


def _parse_flags(arguments):
    """Returns what is left of the arguments; a key that no configuration has ends the program."""
    try:
        return app.parse_flags_with_usage(arguments)
    except ModuleNotFoundError as error:  # a configuration that asks for a package
        sys.exit(str(error))
    except AttributeError as error:
        # ml_collections wraps the KeyError that says "Did you mean ..." in an AttributeError.
        if not error.args or not isinstance(error.args[0], KeyError):
            raise
        sys.exit(f"The configuration has no key {error.args[0].args[0]}")


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
