# The verbs. Each is one step that can be run by hand as well; `make` alone lists them.
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
E ?= lab

.PHONY: help setup lint test role lab lab-down check bench

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what the project needs: Debian packages, uv, the locked Python environment
	@lab/setup.sh

lint: setup ## Read the code: ruff, mypy, yamllint, ansible-lint
	@ruff check . && ruff format --check . && mypy && yamllint --strict . && ansible-lint

test: setup ## Run every layer of the tests, in a lab of their own
	@python tests/run.py

role: setup ## Test one role on machines of the test lab: make role R=base
	@SLIPWAY_LAB=test SLIPWAY_LAB_SLOT=1 sh -c 'lab up --only-cloud && tests/molecule $(R)'

lab: ## Build the whole platform on this machine, or bring it in line
	@lab/setup.sh --lab && lab up

lab-down: ## Remove the lab, all of it and only it
	@lab down

check: setup ## List every fault of an environment's inventory: make check E=prod
	@ansible-playbook playbooks/check.yml -i inventories/$(E)

bench: setup ## Measure the lab against its goals
	@python -m lab.bench
