# `make demo` and `make test` need Python 3.11 or later and git; each makes its environments by itself.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
RUN = .venv/bin/python
# Tests start hundreds of processes, and each would compile the modules that it imports.
unexport PYTHONDONTWRITEBYTECODE
# Three processes on two cores: tests that wait for a process leave their core to another.
PYTEST = $(RUN) -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

.PHONY: demo test check whole quick lint docs clean

demo: .venv/installed
	$(RUN) -m study run demo
	$(RUN) -m study report demo

# All tests; the checks run beside them, and the two environments are made beside each other.
test:
	$(MAKE) --jobs=2 .venv/tested .venv-img2dataset/installed
	$(MAKE) --jobs=2 lint whole

# Quick tests: those that start no Ray and take less than a third of a second.
check: .venv/tested
	$(MAKE) --jobs=2 --output-sync=target lint quick

# img2dataset holds pandas below 3, so the tests of downloading run it from an environment of its own.
whole: .venv/tested .venv-img2dataset/installed
	IMG2DATASET=$(CURDIR)/.venv-img2dataset/bin/img2dataset $(PYTEST)

quick: .venv/tested
	$(PYTEST) -n 2 -m "not ray and not slow"

docs: .venv/tested
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build

lint: .venv/tested
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --editable .
	@touch $@

# The tests need no more of clip-benchmark than its reader of evaluation sets and its metrics.
.venv/tested: .venv/installed
	$(RUN) -m pip install --quiet --editable '.[dev]'
	$(RUN) -m pip install --quiet --no-deps clip-benchmark
	@touch $@

.venv-img2dataset/installed:
	$(PYTHON) -m venv .venv-img2dataset
	.venv-img2dataset/bin/python -m pip install --quiet 'img2dataset>=1.47' 'standard-imghdr; python_version >= "3.13"'
	@touch $@

clean:
	rm -rf .venv .venv-img2dataset pools results/demo site
