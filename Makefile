# make demo and make test are all a newcomer needs; both set up .venv first.

RECIPE ?= flows/configs/demo.yaml
RLAIF := .venv/bin/rlaif

.PHONY: setup setup-cuda demo test ui stop lock schema

setup:                ## .venv from requirements/cpu.lock (PYTHON=... names another Python 3.11)
	@requirements/setup.sh cpu

setup-cuda:           ## .venv-cuda for NVIDIA GPUs
	@requirements/setup.sh cuda

demo: setup           ## the main job on the pocket model, through Prefect (RECIPE=... for another)
	@$(RLAIF) run $(RECIPE)

test: setup           ## all tests (ARGS=... goes to pytest)
	@.venv/bin/python -m pytest $(ARGS)

ui: setup             ## start or find the Prefect server and print where its pages are
	@$(RLAIF) ui

stop:                 ## end the Prefect server that was started here
	@$(RLAIF) stop

lock: setup           ## resolve requirements/*.in again (network)
	@.venv/bin/python requirements/refresh.py cpu
	@.venv/bin/python requirements/refresh.py cuda

schema: setup         ## write the JSON schemas that editors complete YAML from
	@.venv/bin/python -m pipeline.cli.schema
