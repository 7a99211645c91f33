# SPDX-License-Identifier: Apache-2.0
"""What the scripts of launch/ share: flags, logging, and errors without a trace."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging

from edad_jax.allocator import restart_with_large_pages

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
    _find_configs()
    flags.mark_flags_as_required(list(required))

    def main(arguments):
        if len(arguments) > 1 and not positional:
            raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
        absl_logging.set_verbosity(absl_logging.WARNING)  # orbax tells much
        logging.getLogger("edad_jax").setLevel(logging.INFO)
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
    try:
        return app.parse_flags_with_usage(arguments)
    except ModuleNotFoundError as error:  # a configuration that asks for a package
        sys.exit(str(error))
    except AttributeError as error:
        # ml_collections wraps the KeyError that says "Did you mean ..." in an AttributeError.
        if not error.args or not isinstance(error.args[0], KeyError):
            raise
        sys.exit(f"The configuration has no key {error.args[0].args[0]}")
