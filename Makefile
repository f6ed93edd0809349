# Everything runs in .venv, which the first target that needs it makes. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test nightly check format lint types imports docs golden benchmarks benchmark-peers benchmark-full-size clean

help:
	@echo "make demo        compile a small ChatGLM2 checkpoint, run it, compare it, estimate the real one"
	@echo "make test        the whole test suite"
	@echo "make nightly     the property tests of quantized arithmetic with 100 times the examples"
	@echo "make check       format, lint, types, import rules, tests"
	@echo "make benchmarks  the figures of README and docs/benchmarks.md"
	@echo "make benchmark-peers installs six quantization libraries and holds them to the properties of tilewright.testing"
	@echo "make benchmark-full-size FOLDER=...  ChatGLM2-6B whole: 12.5 GB in, 35 GB of disk"
	@echo "make docs        regenerate docs/reference"
	@echo "make golden      re-bless tests/golden and the pages of docs on purpose"

$(VENV)/core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable .
	touch $@

$(VENV)/test: $(VENV)/core
	$(PIP) install --editable '.[test]'
	touch $@

$(VENV)/dev: $(VENV)/test
	$(PIP) install --editable '.[dev]'
	touch $@

demo: $(VENV)/core
	$(BIN)/python examples/demo.py

test: $(VENV)/test
	$(BIN)/python -m pytest -n 2 --dist worksteal

nightly: $(VENV)/test
	$(BIN)/python -m pytest -n 2 --dist worksteal --hypothesis-profile=nightly tests/testing

check: format lint types imports test

format: $(VENV)/dev
	$(BIN)/ruff format --check .

lint: $(VENV)/dev
	$(BIN)/ruff check .

types: $(VENV)/dev
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(VENV)/dev
	$(BIN)/lint-imports

docs: $(VENV)/core
	$(BIN)/python -m tilewright.compiler.reference_pages docs/reference

golden: $(VENV)/test
	$(BIN)/python -m pytest tests/golden tests/tutorial --bless

# Where the full-size benchmark writes: about 35 GB.
FOLDER ?= build/full-size
SCRIPTS := startup quantize_weight one_matmul simulator_kernels kernel_language estimate_chatglm2 compile_depth check_each_pass find_miscompiles rules

benchmarks: $(VENV)/test
	for script in $(SCRIPTS); do $(BIN)/python benchmarks/$$script.py || exit 1; done

benchmark-peers: $(VENV)/test
	$(PIP) install --editable '.[test,peers]'
	$(BIN)/python benchmarks/property_peers.py --examples 20

benchmark-full-size: $(VENV)/test
	$(BIN)/python benchmarks/full_size.py $(FOLDER)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
