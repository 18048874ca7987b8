# make demo and make test do all of it on a fresh machine; the second call installs nothing.
PYTHON ?= python3
EXTRAS ?= dev
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-
STAMP := $(INSTALLED)$(EXTRAS)
TESTED := $(INSTALLED)dev,cluster,coco,segmentation,super-resolution,video

.PHONY: help install demo test types suite verify lint bench clean

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## .venv with the project and its extras at the pinned versions

$(INSTALLED)%: pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
	  test -x $(BIN)/python || uv venv --python $(PYTHON) $(VENV); \
	  uv pip install --python $(BIN)/python -c constraints.txt -e '.[$*]'; \
	else \
	  test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "on Debian: apt-get install python3-venv"; exit 1; }; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'; \
	fi
	@touch $@

demo: $(STAMP)  ## generated pictures and clips: train, evaluate and report in five minutes
	$(BIN)/trunkline demo

test: $(TESTED)  ## everything that takes minutes: formatting, types, tests
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory -j 2 types suite

types: $(TESTED)
	$(BIN)/pyright

suite: $(TESTED)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

verify: $(TESTED)  ## the slow acceptance too, on real data (TRUNKLINE_TEST_DATA)
	$(BIN)/python -m pytest -q -m slow --durations=0

lint: $(STAMP)  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(TESTED)  ## beside plain torchvision loops
	$(BIN)/trunkline bench loader
	$(BIN)/trunkline bench train

clean:  ## remove what was made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
