# The verbs. Each is one step that can be run by hand as well; `make` alone lists them.
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
E ?= lab

.PHONY: help setup lint test soak role role-down lab lab-down check bench

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what the project needs: Debian packages, uv, the locked Python environment
	@lab/setup.sh

lint: ## Read the code: ruff, mypy, yamllint, ansible-lint; without root
	@lab/setup.sh --python && ruff check . && ruff format --check . && mypy && yamllint --strict . && ansible-lint

test: setup ## Prove every promise once, in labs of its own
	@python -m tests.run

soak: setup ## Run what is long or repeated, resumed by part: make soak, make soak PART=ceph
	@python -m tests.soak $(PART)

role: setup ## Test one role on machines that are kept for the next call: make role R=base
	@python -m tests.role $(R)

role-down: setup ## Remove the machines of `make role`
	@python -m tests.role --down

lab: ## Build the whole platform on this machine, or bring it in line
	@lab/setup.sh --lab && lab up

lab-down: ## Remove the lab, all of it and only it
	@lab down

check: ## List every fault of an environment's inventory, without root: make check E=prod
	@lab/setup.sh --python && ansible-playbook playbooks/check.yml -i inventories/$(E)

bench: setup ## Measure the lab against its goals
	@python -m lab.bench
