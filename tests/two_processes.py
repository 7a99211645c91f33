# SPDX-License-Identifier: Apache-2.0
"""One of several processes of a run, as `test_parallel` starts them; not a test itself.

python -m tests.two_processes steps COORDINATOR COUNT INDEX OUT
python -m tests.two_processes train COORDINATOR COUNT INDEX OUT INPUTS PREPARED
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from edad_jax.distillation import edad
from edad_jax.distillation.train import train
from edad_jax.training import state
from edad_jax.training.parallel import Parallel, start_processes
from tests.tiny_run import tiny_config
from tests.tiny_steps import NO_DROPOUT, tiny_nets, tiny_params, tiny_rows, tiny_settings

STEPS, ROWS = 3, 8


def run_steps(out: Path) -> None:
    """Writes metrics and parameters after a few fused steps; each process gives its rows."""
    nets = tiny_nets(**NO_DROPOUT)
    settings = tiny_settings(nets)
    params, frozen = tiny_params(nets)
    parallel = Parallel("auto")
    parallel.check_batch_size(ROWS, 1)
    train_state = parallel.replicate(state.begin(params, settings.optimizers))
    frozen = parallel.replicate(frozen)
    step = parallel.compile(
        edad.make_edad_step(nets, settings), replicated_arguments=2, donate=True
    )
    mine = ROWS // jax.process_count()
    part = slice(jax.process_index() * mine, (jax.process_index() + 1) * mine)
    for number in range(STEPS):
        rows = jax.tree.map(lambda x: x[part], tiny_rows(rows=ROWS, seed=number))
        train_state, metrics = step(train_state, frozen, parallel.shard_batch(rows))
    params = state.unpack(jax.device_get(train_state.params))
    arrays = name_leaves((params, jax.device_get(metrics)))
    arrays["device_count"] = np.array(parallel.device_count)
    np.savez(out / f"{jax.process_index()}.npz", **arrays)


def name_leaves(tree: Any) -> dict[str, np.ndarray]:
    """Returns path -> array."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def main() -> None:
    """Does what the arguments ask for."""
    what, coordinator, count, index, out, *folders = sys.argv[1:]
    where = {"coordinator": coordinator, "process_count": int(count), "process_index": int(index)}
    if what == "steps":
        start_processes(**where)
        run_steps(Path(out))
    else:
        inputs, prepared = folders
        config = tiny_config(Path(inputs), prepared=prepared)
        config.parallel.update(where)
        train(config, out)


if __name__ == "__main__":
    main()
