# Everything a person does with this project. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install -qq --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help serve install export test lint format bench perf constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'
	@echo "Settings (environment or make variables): HOST, GATEWAY_PORT, TRITON_GRPC_PORT, TRITON_METRICS_PORT, REPOSITORY, MODEL, PRECISION"

serve: install ## export what is missing, start Triton and the gateway, print where they listen
	@HOST='$(HOST)' GATEWAY_PORT='$(GATEWAY_PORT)' TRITON_GRPC_PORT='$(TRITON_GRPC_PORT)' \
	TRITON_METRICS_PORT='$(TRITON_METRICS_PORT)' REPOSITORY='$(REPOSITORY)' MODEL='$(MODEL)' \
	PRECISION='$(PRECISION)' \
	exec $(BIN)/python -m launcher

install: $(VENV)/.serve ## make the virtual environment that serves and exports

export: install ## MODEL=hub id or folder, and any of NAME, PRECISION, TARGET, REPOSITORY
	@test -n "$(MODEL)" || { echo "error: say what to export: make export MODEL=hub/id-or-folder" >&2; exit 2; }
	@$(BIN)/python -m export '$(MODEL)' $(if $(NAME),--name '$(NAME)') $(if $(PRECISION),--precision '$(PRECISION)') \
		$(if $(TARGET),--target '$(TARGET)') $(if $(REPOSITORY),--repository '$(REPOSITORY)')

test: $(VENV)/.dev ## run every test
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev ## ruff, mypy, import rules and declared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=backends $(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/deptry . --exclude '^(\.venv|build)' --ignore DEP002,DEP004  # the tests and examples as well

format: $(VENV)/.dev ## format and fix what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench ## measure speed, refresh docs/benchmarks.md; QUICK=1 only tries it, SECTIONS=… a part
	$(BIN)/python -m bench $(SECTIONS) $(if $(QUICK)$(SECTIONS),,--document) $(if $(QUICK),--quick)

perf: $(VENV)/.bench ## measure Triton alone by perf_analyzer, between engine and gateway
	$(BIN)/python -m bench triton

constraints: $(BIN)/uv ## compile constraints.txt from pyproject.toml, keeping versions; UPGRADE=1 takes the latest
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 $(if $(UPGRADE),--upgrade) \
		--no-annotate --custom-compile-command 'make constraints' --output-file constraints.txt --quiet

clean: ## remove what was made here: exports, caches, the virtual environment
	rm -rf build $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@echo "making the virtual environment $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and "error: the embedded Triton needs Python 3.11 or 3.12: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)

$(BIN)/uv: | $(VENV)/bin/python
	@$(PIP) uv

$(VENV)/.serve: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing what serves: Triton, ONNX Runtime, FastAPI (half a minute, once)"
	@$(PIP) --editable '.[serve]'
	@echo "installing what exports: PyTorch, transformers, optimum (a minute or two, once)"
	@$(PIP) --editable '.[export]'
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "installing development tools"
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.serve
	@echo "installing what draws plots"
	@$(PIP) --editable '.[bench]'
	@touch $@
