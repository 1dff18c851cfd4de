# Everything sets itself up in .venv: a fresh machine needs Python 3.11+, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
LIBTPU := $(VENV)/libtpu
DEMO := runs/demo

.PHONY: help demo test check check-wheel test-slow test-tpu test-accelerator clean

help:
	@echo 'make demo         train on the embedded textures and show what was found'
	@echo 'make test         linters, types, layers and tests'
	@echo 'make check        the same without the tests'
	@echo 'make check-wheel  build sdist and wheel, and use them in fresh environments; part of test-slow'
	@echo 'make test-slow    the tests that take minutes'
	@echo 'make test-tpu     those that need the TPU compiler, which it installs; no TPU is needed'
	@echo 'make test-accelerator  check and time the GPU or TPU that jax finds (JAX=cuda or tpu installs it)'
	@echo 'make clean        remove the environment and the demo'

$(READY): requirements.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(READY)
	$(BIN)/python train.py --config configs/laptop.py:brick --workdir $(DEMO)
	$(BIN)/python eval.py --workdir $(DEMO)
	@echo 'Open $(DEMO)/eval/report.html'

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

check-wheel: $(READY)
	$(BIN)/pytest -m slow tests/test_installation.py

test: check
	$(BIN)/pytest --numprocesses 2 --dist loadfile

test-slow: $(READY)
	$(BIN)/pytest -m slow

# Beside the environment, not in it: where JAX finds libtpu, it looks for a TPU at every start.
$(LIBTPU): requirements-tpu.txt | $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --target $(LIBTPU) --upgrade --requirement requirements-tpu.txt
	@touch $@

test-tpu: $(READY) $(LIBTPU)
	PYTHONPATH=$(CURDIR)/$(LIBTPU) $(BIN)/pytest -m tpu

# JAX=cuda or JAX=tpu brings jax for it first.
test-accelerator: $(READY)
	$(if $(JAX),$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(JAX)]')
	$(BIN)/pytest -m accelerator tests/accelerator -rs

clean:
	rm -rf $(VENV) runs/demo
