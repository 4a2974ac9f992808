# Every target sets up what it needs. LINE, PYTHON and VENV are explained in tools/setup_env.sh.
VENV ?= .venv
export VENV LINE

.PHONY: help env test test-openmmlab lint demo clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

env: ## the environment, in .venv: torch, the OpenMMLab stack, mmfish
	@tools/setup_env.sh

# A worker that dies is a failure: pytest-xdist can wait for ever for one that it has restarted.
test: env ## the tests; PYTEST_ARGS='-m "not slow"' passes arguments to pytest
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
		--max-worker-restart 0 $(PYTEST_ARGS)

test-openmmlab: ## the tests with the packages of OpenMMLab, in .venv-openmmlab
	@$(MAKE) --no-print-directory test LINE=openmmlab VENV=.venv-openmmlab

lint: env ## the linters
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/codespell
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml

demo: env ## FishNet learns to detect and segment: data, training, evaluation, pictures
	$(VENV)/bin/python -m demo

clean: ## remove what builds and tests left; the environment, data and work_dirs stay
	rm -rf build dist mmfish.egg-info .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
