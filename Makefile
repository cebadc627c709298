# `make demo` and `make test` do all of their own set-up. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOMS := jobs/podium/jobs topk/podium/topk server/podium/server worker/podium/worker client/podium/client
DATA ?=
# Compose v2 where it is, else docker-compose 1.29.
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format lint types walls proto proto-check docs pytest test-chaos test-hostile bench-topk bench-train bench-pool bench-service up down clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## Install everything into .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Podium needs Python 3.11, 3.12 or 3.13; $$($(PYTHON) --version) is none of them. Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	@echo "Installing PyTorch and the rest into $(VENV): a minute or two, 5.5 GB ..."
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[server,worker,local,demo,otel]' --group dev
	@touch $@

demo: setup ## Fine-tune for real, twice, and compare: softmax against a top-k loss (DATA=folder-or-tar to use your images)
	$(BIN)/podium demo $(if $(DATA),--data '$(DATA)')

# Two at a time: installing has no use for a second core, and the tests, which wait a lot, leave one to mypy.
test: ## Everything: format, lint, types, walls, generated code, tests
	$(MAKE) --jobs 2 lint walls proto-check
	$(MAKE) --jobs 2 types pytest

check: lint types walls proto-check ## Everything of `test` but the tests

format: setup ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	nice $(BIN)/mypy $(ROOMS) tests benchmarks docs/sorter_table.py

walls: setup
	$(BIN)/lint-imports

.venv-proto/.installed: proto/requirements.txt
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install --quiet --requirement proto/requirements.txt
	@touch $@

proto: .venv-proto/.installed ## Generate proto/gen from the .proto files
	.venv-proto/bin/python proto/generate.py proto/gen

proto-check: .venv-proto/.installed
	.venv-proto/bin/buf lint proto
	.venv-proto/bin/buf format --diff --exit-code proto
	@for released in proto/released/*.binpb; do .venv-proto/bin/buf breaking proto --against $$released || exit 1; done
	@fresh=$$(mktemp -d) && .venv-proto/bin/python proto/generate.py $$fresh/gen 2>/dev/null && \
		{ diff -r --exclude=__pycache__ $$fresh/gen proto/gen && rm -r $$fresh || \
		{ rm -r $$fresh; echo "proto/gen is not what the .proto files say; run: make proto"; exit 1; }; }

docs: setup ## Make the tables and draw the pictures of docs/topk.md
	$(BIN)/pip install --quiet --constraint constraints.txt --group docs
	$(BIN)/python docs/sorter_table.py
	$(BIN)/python docs/plots/topk.py

# A file at a time on each of at most four processes, which then need no threads of their own; those that start stacks first.
# Bytecode is kept whatever the environment says, as the tests start hundreds of programs.
pytest: setup
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-chaos: setup ## Kill everything everywhere and ask whether the promises hold, half an hour (ARGS=--help for more)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos $(ARGS)
	PODIUM_MODEL_EXAMPLES=300 $(BIN)/pytest tests/contract/test_job_store_interleaved.py tests/contract/test_job_store_lockstep.py

test-hostile: setup ## Send a server what nobody should, and ask whether it still serves, some minutes (ARGS=--help for more)
	$(BIN)/python -m tests.hostile $(ARGS)

# Apart from .venv, so that nothing which only the benchmark needs is ever imported by accident.
.bench-packages/.installed: benchmarks/requirements.txt benchmarks/requirements-sparse.txt constraints.txt | setup
	rm -rf $(filter-out .bench-packages/mlflow,$(wildcard .bench-packages/*))
	$(BIN)/pip install --quiet --no-deps --target .bench-packages --requirement benchmarks/requirements.txt
	@echo "Building torch-sparse, which two of difftopk's sorters need: about 45 minutes on one core, once ..."
	@{ MAX_JOBS=$(or $(MAX_JOBS),1) $(BIN)/pip install --no-deps --no-build-isolation --target .bench-packages \
		--requirement benchmarks/requirements-sparse.txt && PYTHONPATH=.bench-packages $(BIN)/python -c 'import torch_sparse'; \
		} >.bench-packages/build.log 2>&1 || { rm -rf .bench-packages/torch_*; echo "torch-sparse cannot be built here; the" \
		"rows that need it stay empty (why: .bench-packages/build.log; after a change of torch: pip cache remove 'torch_*')."; }
	@touch $@

# GNU OpenMP's threads would spin for a whole time slice where others use the cores, and a call of 0.1 ms take 30; after
# 10,000 turns they sleep, which costs nothing that can be measured on an idle machine.
bench-topk: .bench-packages/.installed ## Time and memory of the top-k losses, against difftopk and torch (ARGS=--help for more)
	PYTHONPATH=.bench-packages GOMP_SPINCOUNT=10000 $(BIN)/python -m benchmarks.topk $(ARGS)

bench-train: setup ## Training against bare loops, torchvision's recipes and its own limits (ARGS=--help for more)
	GOMP_SPINCOUNT=10000 $(BIN)/python -m benchmarks.train $(ARGS)

bench-pool: setup ## The pool: dispatch, fairness, idle slots, recovery, memory, ten minutes of killing (ARGS=--help for more)
	$(BIN)/python -m benchmarks.pool $(ARGS)

# A virtual environment of its own: MLflow brings its own versions of what we have too.
.bench-packages/mlflow/.installed: benchmarks/requirements-mlflow.txt
	$(PYTHON) -m venv .bench-packages/mlflow
	.bench-packages/mlflow/bin/pip install --quiet --requirement benchmarks/requirements-mlflow.txt
	@touch $@

bench-service: setup .bench-packages/mlflow/.installed ## The front desk under many clients, against an echo and MLflow (ARGS=--help for more)
	$(BIN)/python -m benchmarks.service $(ARGS)

up: deploy/secrets/redis_password ## Bring docker-compose.yml up with a CPU worker (DATA=folder with your images)
	PODIUM_DATA='$(or $(DATA),./data)' $(COMPOSE) --profile cpu up --detach --build

down: ## Stop what `make up` started; volumes stay
	$(COMPOSE) --profile cpu --profile gpu down

deploy/secrets/redis_password:
	@mkdir -p deploy/secrets && $(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(32))' > $@

clean: ## Remove environments and caches
	rm -rf .venv .venv-proto .bench-packages .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
