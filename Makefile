# `make demo` and `make test` are all a newcomer needs; both set up .venv first.

RECIPE ?= flows/configs/demo.yaml
RLAIF := .venv/bin/rlaif
PYTHON_BIN := .venv/bin/python
# Worker processes of pytest (tests/conftest.py says which tests stay together). Many tests wait for
# programs that they start, so two cores hold three.
WORKERS ?= 3
# Packages are compiled when they are first used (requirements/setup.sh). Where this is set, as in
# many containers, each process would compile Prefect, torch and vLLM again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup setup-cuda setup-cluster demo demo-real test check format ui stop lock schema docs

setup:                ## .venv from requirements/cpu.lock (PYTHON=... names another Python 3.11)
	@requirements/setup.sh cpu

setup-cuda:           ## .venv-cuda for NVIDIA GPUs
	@requirements/setup.sh cuda

setup-cluster: setup  ## Ray and s3 added to .venv, for runs on several machines
	@requirements/setup.sh cluster

demo: setup           ## the main job on the pocket model, through Prefect (RECIPE=... for another)
	@$(RLAIF) run $(RECIPE)

demo-real: setup      ## both phases on a real model, SmolLM2-135M-Instruct, which the first time fetches
	@$(PYTHON_BIN) -m models.smollm2.build
	@$(RLAIF) run flows/configs/laptop.yaml

# With Ray, so that nothing about workers is left untested; only those who test pay its 380 MB.
test: setup-cluster   ## all tests (ARGS=... goes to pytest; WORKERS=0 runs them in one process)
	@$(PYTHON_BIN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup          ## lint, format, types and generated files; changes nothing
	@$(PYTHON_BIN) -m ruff check .
	@$(PYTHON_BIN) -m ruff format --check .
	@$(PYTHON_BIN) -m mypy
	@$(PYTHON_BIN) -m pipeline.cli.schema --check

format: setup         ## fix what ruff can fix
	@$(PYTHON_BIN) -m ruff check --fix .
	@$(PYTHON_BIN) -m ruff format .

ui: setup             ## start the Prefect server, or find it, and print where its pages are
	@$(RLAIF) ui

stop:                 ## stop the Prefect server that was started here
	@$(RLAIF) stop

lock: setup           ## resolve requirements/*.in again (network)
	@$(PYTHON_BIN) requirements/refresh.py cpu
	@$(PYTHON_BIN) requirements/refresh.py cuda
	@$(PYTHON_BIN) requirements/refresh.py docs
	@$(PYTHON_BIN) requirements/refresh.py cluster

schema: setup         ## write the JSON schemas for editors, and docs/recipes.md
	@$(PYTHON_BIN) -m pipeline.cli.schema

docs:                 ## build site/ from docs/, to be opened from its files (.venv-docs)
	@requirements/setup.sh docs
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict -f requirements/mkdocs.yml
	@echo "site/index.html"
