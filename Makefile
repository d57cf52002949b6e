# `make demo` and `make test` need nothing but make, git and a Python >= 3.11: they build .venv by themselves.

PYTHON ?=
GPU_PYTHON ?=
OUT ?= gpu-check
VENV := .venv
BIN := $(VENV)/bin
CREATED := $(VENV)/.created
BASE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
INCOMPLETE := $(VENV)/.incomplete

# pip hands these on to the environment it builds the package in; older ones read the first, newer ones the second.
# They are relative because pip splits them at spaces.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
.PHONY: help demo test lint types gpu-check venv clean FORCE

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: $(BASE) ## Train the quickstart on this machine, then show its status, its note and the way to its curves
	@job=$$($(BIN)/tdmpc-lab submit experiments/quickstart.yaml --cluster local --again --wait --json) || exit 1; \
	id=$$(printf '%s' "$$job" | $(BIN)/python -c 'import json, sys; print(json.load(sys.stdin)["jobs"][0]["id"])'); \
	echo && $(BIN)/tdmpc-lab status && echo && $(BIN)/tdmpc-lab note "$$id" && echo
	@echo "Its curves in MLflow: $(BIN)/tdmpc-lab ui"

# The tests on SLURM use the cluster named by SLURM_CONF, else the one in .slurm-sim; without one they are skipped, and
# pytest's summary says so in one line.
test: $(DEV) ## Run the tests, on SLURM too when tools/slurm-sim is up; config, notes and jobs need 90 % coverage each, branches included
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n 2 --dist loadgroup --cov --cov-report=
	@for package in config notes jobs; do \
		$(BIN)/coverage report --include="src/tdmpc_lab/$$package/*" --fail-under=90 --format=total > /dev/null || { \
			$(BIN)/coverage report --include="src/tdmpc_lab/$$package/*" --show-missing --skip-covered; \
			echo "make: src/tdmpc_lab/$$package is covered by less than 90 %: add tests for what is missing above" >&2; \
			exit 1; \
		}; \
	done

lint: $(DEV) ## Check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(DEV) ## Check the types
	@$(BIN)/mypy

# GPU_PYTHON names a Python that has a CUDA build of torch and the project's packages: it is used as it is, .venv is not.
gpu-check: $(if $(GPU_PYTHON),,$(DEV)) ## Try all that needs a GPU on the one that is here; the report goes to OUT=gpu-check
	@"$(or $(GPU_PYTHON),$(BIN)/python)" tools/gpu-check --out "$(OUT)"

venv: $(BASE) ## Only build .venv (PYTHON=/path/to/python chooses the Python)

clean: ## Remove .venv and caches; jobs, notes and runs stay
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* build dist src/*.egg-info
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv that can't be relied on is made anew: the last installation broke off, the folder was moved (scripts in it
# hold its path), or the Python it was made from is gone.
SOUND := $(shell test ! -e $(INCOMPLETE) && test "$$(cat $(CREATED) 2>/dev/null)" = "$$(pwd -P)" \
	&& $(BIN)/python -c '' 2>/dev/null && echo yes)

$(CREATED): $(if $(SOUND),,FORCE)
	@if [ -n "$$PYTHON" ]; then set -- "$$PYTHON"; else set -- python3 python3.13 python3.12 python3.11; fi; \
	python=; bare=; \
	for candidate in "$$@"; do \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || continue; \
		if "$$candidate" -c 'import ensurepip, venv' 2> /dev/null; then python=$$candidate; break; fi; \
		bare=$${bare:-$$candidate}; \
	done; \
	if [ -z "$$python" ] && [ -n "$$bare" ]; then \
		package=$$("$$bare" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		echo "make: '$$bare' can't build a virtual environment: its module ensurepip is missing. On Debian and Ubuntu:" >&2; \
		echo "    sudo apt install python3-venv        (or $$package, where $$bare is not the system's own version)" >&2; \
		echo "Then run make again. Another Python: make PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	if [ -z "$$python" ]; then \
		echo "make: a Python >= 3.11 is needed, and none was found (looked for: $$*). Install one, or name it:" >&2; \
		echo "    make PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi; \
	rm -rf $(VENV); \
	echo "Building $(VENV) with $$("$$python" --version) ..."; \
	mkdir $(VENV) && touch $(INCOMPLETE) && "$$python" -m venv $(VENV) && pwd -P > $(CREATED)

$(BASE): $(CREATED) pyproject.toml constraints.txt
	$(call install,.)
	@touch $(BASE)

$(DEV): $(CREATED) pyproject.toml constraints.txt
	$(call install,.[dev])
	@touch $(BASE) $(DEV)

define install
	@echo "Installing into $(VENV); this takes some minutes the first time, most of it for torch ..."
	@touch $(INCOMPLETE)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '$(1)'
	@rm $(INCOMPLETE)
endef

FORCE:
