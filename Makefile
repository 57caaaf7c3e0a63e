# The project's jobs. Only python3, make and git are presumed; uv is bootstrapped inside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MEDIA ?=

.PHONY: demo test check lint types train-demo bench lock clean help

help:
	@echo "make demo [MEDIA=path]  emotion timeline of a clip, into results/demo/"
	@echo "make test               the test suite"
	@echo "make check              ruff, mypy and the tests"
	@echo "make train-demo         a small real training run on generated data"
	@echo "make bench              speed and memory against the reference recipe"
	@echo "make lock               recompile requirements.txt from pyproject.toml"

$(STAMP): requirements.txt
	@test -x $(BIN)/uv || ($(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv)
	@echo "installing the locked dependencies into $(VENV) (a minute on a first run)"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.txt
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m datasets.demo $(if $(MEDIA),--media_path "$(MEDIA)",)

test: $(STAMP)
	@$(BIN)/python -m pytest

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

check: lint types test

train-demo: $(STAMP)
	@$(BIN)/python -m benchmarks.train_demo

bench: $(STAMP)
	@$(BIN)/python -m benchmarks.inference_speed

lock: $(STAMP)
	@$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-annotate --python-version 3.11 \
	  --custom-compile-command "make lock" -o requirements.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
