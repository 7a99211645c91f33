# SPDX-License-Identifier: Apache-2.0
# %% [markdown]
# # Fine-tune, look at the errors, export, use
#
# Named entities with a student of quickstart.ipynb, or any BERT. The data: a folder with train,
# validation and test files of two columns, such as NCBI-disease-IOB of
# https://github.com/cambridgeltl/MTL-Bioinformatics-2016 (CC BY 4.0).

# %%
MODEL = "runs/quickstart/student"
DATA = "MTL-Bioinformatics-2016/data/NCBI-disease-IOB"

# %%
import os
import sys
from pathlib import Path

here = Path.cwd()
root = next(each for each in (here, *here.parents) if (each / "configs" / "edad.py").is_file())
os.chdir(root)
sys.path.insert(0, str(root))

# %%
from configs import ner

import edad_jax

config = ner.get_config()
config.model, config.data = MODEL, DATA
config.epochs = 5
config.optimizer.learning_rate = 3e-4  # a small student needs more than a BERT-base
scores = edad_jax.finetune(config, "runs/ncbi")
scores

# %% [markdown]
# Errors: sentences of the test split where a word's tag is not the gold one.

# %%
text = (scores.workdir / "predictions" / "test-seed-0.tsv").read_text(encoding="utf-8")
sentences = [
    [line.split("\t") for line in block.splitlines()] for block in text.strip().split("\n\n")
]
wrong = [words for words in sentences if any(word[-2] != word[-1] for word in words)]
print(len(wrong), "of", len(sentences), "sentences have an error")
for words in wrong[:5]:
    print(" ".join(f"{w[0]}[{w[-2]}->{w[-1]}]" if w[-2] != w[-1] else w[0] for w in words))

# %% [markdown]
# Export: one ONNX file in eight bits, read by numpy, onnxruntime and tokenizers alone. It must find
# 98% of the entities that the trained model finds; `auto` keeps as many parts in 32 bits as that
# takes.

# %%
folder = edad_jax.export_model(scores.workdir / "model", "onnx-int8", keep_float32=["auto"])
print({path.name: f"{path.stat().st_size / 1e6:.1f} MB" for path in folder.iterdir()})

# %%
tagger = edad_jax.Tagger(folder)
for spans in tagger(["Mutations of BRCA1 cause breast cancer.", "He has a mild fever."]):
    print(spans)

# %% [markdown]
# Over HTTP, with a page to paste text into:
#
# ```
# python launch/serve.py --models ncbi=runs/ncbi/model-onnx-int8
# ```
