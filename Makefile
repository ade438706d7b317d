# The commands of this project. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install -qq --disable-pip-version-check --constraint constraints.txt

PIP_AUDIT := pip-audit==2.10.1
AUDIT_SERVICE := pypi
SECONDS := 600

export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help serve install export remove-model test clients containers coverage lint format fuzz audit chaos attacks overload soak bench perf constraints clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "Settings (environment or make variables): HOST, GATEWAY_PORT, TRITON_GRPC_PORT, TRITON_METRICS_PORT, REPOSITORY, MODEL, PRECISION, REVISION"

serve: install ## export missing models, start Triton and the gateway, and print their addresses
	@HOST='$(HOST)' GATEWAY_PORT='$(GATEWAY_PORT)' TRITON_GRPC_PORT='$(TRITON_GRPC_PORT)' \
	TRITON_METRICS_PORT='$(TRITON_METRICS_PORT)' REPOSITORY='$(REPOSITORY)' MODEL='$(MODEL)' \
	PRECISION='$(PRECISION)' REVISION='$(REVISION)' \
	exec $(BIN)/python -m launcher

install: $(VENV)/.serve ## create the virtual environment for serving and exporting

export: install ## MODEL=hub id or folder, and any of NAME, TASK, PRECISION, TARGET, REPOSITORY, SET="STEP.OPTION=VALUE …"
	@test -n "$(MODEL)" || { echo "error: MODEL is not set: make export MODEL=hub/id-or-folder" >&2; exit 2; }
	@$(BIN)/python -m export '$(MODEL)' $(if $(NAME),--name '$(NAME)') $(if $(TASK),--task '$(TASK)') \
		$(if $(PRECISION),--precision '$(PRECISION)') $(if $(TARGET),--target '$(TARGET)') \
		$(if $(REPOSITORY),--repository '$(REPOSITORY)') \
		$(foreach setting,$(SET),--set '$(setting)')

remove-model: install ## MODEL=public id to remove from REPOSITORY; a running server stops serving it
	@test -n "$(MODEL)" || { echo "error: MODEL is not set: make remove-model MODEL=public/id" >&2; exit 2; }
	@REPOSITORY='$(if $(REPOSITORY),$(REPOSITORY),build/model_repository)' $(BIN)/python -m deploy.remove_model '$(MODEL)'

test: $(VENV)/.dev ## run all tests; PYTEST_ARGS=… selects some
	$(BIN)/pytest $(PYTEST_ARGS)

clients: $(VENV)/.dev ## run other people's clients against a real server, each in its own environment
	$(BIN)/pytest tests/clients -m clients $(PYTEST_ARGS)

containers: $(VENV)/.dev ## build the containers and run them on stand-ins for their base images; needs root, Docker and debootstrap
	$(BIN)/pytest tests/deploy/test_containers.py -m docker $(PYTEST_ARGS)

chaos: $(VENV)/.dev ## inject faults into a running service on loopback and print what its clients notice (some minutes)
	$(BIN)/python -m bench.chaos $(if $(REPOSITORY),--repository '$(REPOSITORY)')

attacks: $(VENV)/.dev ## attack a running service on loopback in many ways and print what its other clients notice (ten minutes)
	$(BIN)/python -m bench.attacks $(if $(REPOSITORY),--repository '$(REPOSITORY)')

overload: $(VENV)/.dev ## send ten times the requests that the service can serve, and print how many it serves (four minutes)
	$(BIN)/python -m bench.overload $(if $(REPOSITORY),--repository '$(REPOSITORY)')

soak: $(VENV)/.dev ## good and bad requests side by side for SECONDS (half an hour), and what the service has kept of them
	$(BIN)/python -m bench.soak $(if $(filter command line environment,$(origin SECONDS)),--seconds $(SECONDS)) \
		$(if $(REPOSITORY),--repository '$(REPOSITORY)')

coverage: $(VENV)/.dev ## run all tests and list the code that they do not cover
	$(BIN)/pytest --cov --cov-report=term-missing $(PYTEST_ARGS)

lint: $(VENV)/.dev ## check style, types, imports and declared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=backends $(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/deptry . --exclude '^(\.venv|build)' --ignore DEP002,DEP004  # the tests and examples as well

format: $(VENV)/.dev ## format the code and apply ruff's fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: $(VENV)/.dev ## feed the parsers of bodies, URLs, images and PDFs with damaged input for SECONDS=600
	PYTHONPATH=.:backends $(BIN)/python -m tests.fuzz $(SECONDS)

audit: $(BIN)/uv ## look up known vulnerabilities of the pinned packages; AUDIT_SERVICE=osv asks OSV instead of PyPI
	@$(BIN)/uv tool run --from '$(PIP_AUDIT)' pip-audit --requirement constraints.txt --no-deps --disable-pip --strict \
		--progress-spinner off --vulnerability-service $(AUDIT_SERVICE) || { echo "error: a package has a known" \
		"vulnerability, or could not be looked up. The audit needs https://pypi.org/pypi, which mirrors of the package" \
		"index lack, or with AUDIT_SERVICE=osv https://api.osv.dev" >&2; exit 1; }

bench: $(VENV)/.bench ## measure performance and update docs/benchmarks.md; QUICK=1 is a trial, SECTIONS=… a part
	$(BIN)/python -m bench $(SECTIONS) $(if $(QUICK)$(SECTIONS),,--document) $(if $(QUICK),--quick)

perf: $(VENV)/.bench ## measure Triton alone with perf_analyzer, beside the engine and the gateway, in about six minutes
	@echo "This takes about six minutes: two exports, then three loads on the bare engine, on Triton alone and on the gateway."
	$(BIN)/python -m bench triton

constraints: $(BIN)/uv ## compile constraints.txt and the clients' requirements; UPGRADE=1 takes the latest versions
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 $(if $(UPGRADE),--upgrade) \
		--no-annotate --custom-compile-command 'make constraints' --output-file constraints.txt --quiet
	for group in tests/clients/requirements/*.in; do \
		$(BIN)/uv pip compile $$group --universal --python-version 3.11 --no-config $(if $(UPGRADE),--upgrade) \
			--no-annotate --custom-compile-command 'make constraints' --output-file $${group%.in}.txt --quiet || exit; \
	done

clean: ## remove exports, caches and virtual environments
	rm -rf build .venv .venv-* *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage

$(VENV)/bin/python:
	@echo "creating the virtual environment $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and "error: the embedded Triton needs Python 3.11 or 3.12: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)

$(BIN)/uv: | $(VENV)/bin/python
	@$(PIP) uv

$(VENV)/.serve: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing the server: Triton, ONNX Runtime, FastAPI (once, half a minute)"
	@$(PIP) --editable '.[serve]'
	@echo "installing the export: PyTorch, transformers, optimum (once, a minute or two)"
	@$(PIP) --editable '.[export]'
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "installing development tools"
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.serve
	@echo "installing the plotting library"
	@$(PIP) --editable '.[bench]'
	@touch $@
