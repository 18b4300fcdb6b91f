# `make chat` and `make test` need Python 3.11 or newer, make, and a package index; nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CKPT      ?=
TOKENIZER ?=
ARGS      ?=
BESIDE    := --numprocesses 2 --dist loadfile

.PHONY: help chat test lint types imports pytest screenshots fuzz speed clean

help:  ## Show the targets.
	@sed -n 's/^\([a-z]*\):.*## /  make \1  ->  /p' $(MAKEFILE_LIST)

chat: $(VENV)/installed  ## Open the chat on the demo model, or on CKPT=… TOKENIZER=… ARGS="…".
	@$(BIN)/llama-tui $(if $(CKPT),$(CKPT) $(TOKENIZER),--demo) $(ARGS)

test: lint types imports pytest  ## Lint, types, import rules and all tests.

lint: $(VENV)/installed-dev  ## Style.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev  ## Types, strict on core.
	$(BIN)/mypy

imports: $(VENV)/installed-dev  ## Who may import whom.
	$(BIN)/lint-imports

pytest: $(VENV)/installed-dev  ## All tests; PYTEST_ARGS="-k name" for some (but no -m).
	@# Two by two what bears company, with OpenMP's idle threads asleep; then what must be alone.
	@# Status 5 is no failure: none of the tests that were asked for is of this half.
	OMP_WAIT_POLICY=passive $(BIN)/pytest -m "not alone and not gpu" $(BESIDE) $(PYTEST_ARGS) || [ $$? -eq 5 ]
	$(BIN)/pytest -m "alone or gpu" $(PYTEST_ARGS) || [ $$? -eq 5 ]

screenshots: $(VENV)/installed-dev  ## Draw the README's picture from a real run of the demo model.
	$(BIN)/python -m tests.screenshots

fuzz: $(VENV)/installed-dev  ## Damage 2000 checkpoints of every kind and open them (takes half an hour).
	$(BIN)/python -m tests.fuzz

speed: $(VENV)/installed-dev  ## Decode in the chat against headless, five alternating pairs (takes minutes).
	$(BIN)/python -m tests.speed

clean:  ## Remove the environment and every cache.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/installed
