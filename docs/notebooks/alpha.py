# SPDX-License-Identifier: Apache-2.0
# %% [markdown]
# # Alpha's schedules side by side
#
# The weight of distillation over a run: falling, rising, constant (docs/concepts.md). The same
# rows, seed and sizes for all. With the quick start's sizes each takes some eight minutes on two
# cores; a third of its updates shows the difference.

# %%
SCHEDULES = ("linear", "linear_reverse", "only_distillation", "only_adaptation")
STEPS = 80

# %%
import os
import sys
from pathlib import Path

here = Path.cwd()
root = next(each for each in (here, *here.parents) if (each / "configs" / "edad.py").is_file())
os.chdir(root)
sys.path.insert(0, str(root))

# %%
from configs import quickstart

import edad_jax

runs = {}
for name in SCHEDULES:
    config = quickstart.get_config()
    config.alpha = name
    config.max_steps = STEPS
    if runs:  # the rows of the first run serve all
        config.prepared = f"runs/alpha/{SCHEDULES[0]}"
    runs[name] = edad_jax.train(config, f"runs/alpha/{name}")

# %%
for name, run in runs.items():
    end = run["heldout"]["end"]
    print(f"{name:20} {end['heldout/student_mlm_accuracy']:.1%} of the masked words")

# %% [markdown]
# All runs in one picture and one table.

# %%
from edad_jax.report import comparison

folders = [run.workdir for run in runs.values()]
print(comparison.runs_table(folders))
picture = comparison.plot_runs("runs/alpha/report.png", folders)

# %%
if "IPython" in sys.modules:
    from IPython.display import Image, display

    display(Image(str(picture)))
