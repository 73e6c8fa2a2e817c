# The verbs. Each runs one command, which can be run by hand as well; `make` alone lists them.
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Named, Ansible reads it also where everybody may write to the checkout, and from another folder (make -C).
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
E ?= lab

.PHONY: help setup lint test soak role role-down lab lab-down check bench

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what the project needs: Debian packages, uv, the locked Python environment
	@lab/setup.sh

lint: ## Check the code: ruff, mypy, yamllint, ansible-lint; without root
	@lab/setup.sh --python && ruff check . && ruff format --check . && mypy && yamllint --strict . && ansible-lint

test: setup ## Run every test once, in labs of its own
	@python -m tests.run

soak: setup ## Run the long and repeated tests, by part: make soak, make soak PART=ceph
	@python -m tests.soak $(PART)

role: setup ## Test one role on machines that the next call reuses: make role R=base
	@python -m tests.role $(R)

role-down: setup ## Remove the machines of `make role`
	@python -m tests.role --down

lab: ## Build the whole platform on this machine, or converge it
	@lab/setup.sh --lab && lab up

lab-down: ## Remove the whole lab and nothing else
	@lab down

check: ## Report every fault of an environment's inventory, without root: make check E=prod
	@lab/setup.sh --python && ansible-playbook playbooks/check.yml -i inventories/$(E)

bench: setup ## Measure the lab and compare it with its goals
	@python -m lab.bench
