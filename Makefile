# Everything sets itself up in .venv: a fresh machine needs Python 3.11+, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
LIBTPU := $(VENV)/libtpu
# The packages are pinned by requirements$(PINS).txt and requirements-tpu$(PINS).txt.
PINS :=
DEMO := runs/demo

.PHONY: help demo test check check-wheel suite test-slow test-tpu test-newest test-accelerator clean

help:
	@echo 'make demo         train on the embedded textures and show what was found'
	@echo 'make test         linters, types, layers and tests'
	@echo 'make check        the same without the tests'
	@echo 'make check-wheel  build sdist and wheel, and use them in fresh environments; part of test-slow'
	@echo 'make test-slow    the tests that take minutes'
	@echo 'make test-tpu     those that need the TPU compiler, which it installs; no TPU is needed'
	@echo 'make test-newest  the tests, and those of test-tpu, with the newest jax and the newest Python from 3.12 on'
	@echo 'make test-accelerator  check and time the GPU or TPU that jax finds (JAX=cuda or tpu installs it)'
	@echo 'make clean        remove the environments and the demo'

$(READY): requirements$(PINS).txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements$(PINS).txt
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
	$(BIN)/hadolint Dockerfile

check-wheel: $(READY)
	$(BIN)/pytest -m slow tests/test_installation.py

test: check suite

# A crashed worker ends the run: where it is replaced, the others wait for it for ever.
PARALLEL := --numprocesses 2 --dist loadfile --max-worker-restart 0

suite: $(READY)
	$(BIN)/pytest $(PARALLEL)

test-slow: $(READY)
	$(BIN)/pytest -m slow $(PARALLEL)

# Beside the environment, not in it: where JAX finds libtpu, it looks for a TPU at every start.
$(LIBTPU): requirements-tpu$(PINS).txt | $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --target $(LIBTPU) --upgrade --requirement requirements-tpu$(PINS).txt
	@touch $@

test-tpu: $(READY) $(LIBTPU)
	PYTHONPATH=$(CURDIR)/$(LIBTPU) $(BIN)/pytest -m tpu

# JAX=cuda or JAX=tpu brings jax for it first.
test-accelerator: $(READY)
	$(if $(JAX),$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(JAX)]')
	$(BIN)/pytest -m accelerator tests/accelerator -rs

# What pyenv puts on the PATH for a version that is not chosen does not run; its folders are looked at.
test-newest:
	@for version in 3.14 3.13 3.12; do \
	  for python in python$$version "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python; do \
	    if "$$python" -c 'import ensurepip' 2> /dev/null; then \
	      echo "test-newest: $$("$$python" --version) ($$python), $$(grep ^jax= requirements-newest.txt)"; \
	      exec $(MAKE) suite test-tpu PYTHON="$$python" VENV=.venv-newest PINS=-newest; \
	    fi; \
	  done; \
	done; \
	echo 'test-newest: skipped, for no Python of 3.12 or later runs here, which the newest jax needs'

clean:
	rm -rf $(VENV) .venv-newest runs/demo
