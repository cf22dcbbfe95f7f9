# `make demo` and `make test` need Python 3.11 or later and git; each makes its environments by itself.
# Oldest first; a name may be there without working, as pyenv's are.
PYTHONS := $(foreach name,python3.11 python3.12 python3.13,$(shell $(name) -c '' 2>/dev/null && command -v $(name)))
PYTHON ?= $(firstword $(PYTHONS) python3)
NEWEST = $(or $(lastword $(PYTHONS)),python3)
VENV ?= .venv
RUN = $(VENV)/bin/python
# Tests start hundreds of processes, and each would compile the modules that it imports.
unexport PYTHONDONTWRITEBYTECODE
# Three processes on two cores: tests that wait for a process leave their core to another.
PYTEST = $(RUN) -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

.PHONY: demo test check newest whole quick forks lint docs dist release clean

demo: $(VENV)/installed
	$(RUN) -m study run demo
	$(RUN) -m study report demo

# All tests; the checks run beside them, and the two environments are made beside each other.
test:
	$(MAKE) --jobs=2 $(VENV)/tested .venv-img2dataset/installed
	$(MAKE) --jobs=2 lint whole

# Quick tests: those that start no Ray and take less than a third of a second.
check: $(VENV)/tested
	$(MAKE) --jobs=2 --output-sync=target lint quick

# What differs between Pythons, on the newest: types, quick tests, and all that fit laws, fork or start Ray.
newest:
	$(MAKE) VENV=.venv-newest PYTHON=$(NEWEST) .venv-newest/tested
	$(MAKE) VENV=.venv-newest PYTHON=$(NEWEST) --jobs=2 lint forks

# img2dataset holds pandas below 3, so the tests of downloading run it from an environment of its own.
whole: $(VENV)/tested .venv-img2dataset/installed
	IMG2DATASET=$(CURDIR)/.venv-img2dataset/bin/img2dataset $(PYTEST)

quick: $(VENV)/tested
	$(PYTEST) -n 2 -m "not ray and not slow"

forks: $(VENV)/tested
	$(PYTEST) -m "ray or not slow"
	$(PYTEST) -m "slow and not ray" tests/analysis tests/runners

docs: $(VENV)/tested
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

# The package as users get it: built, then tried from an empty folder on the oldest and the newest Python here.
dist: $(VENV)/tested
	rm -rf dist
	$(RUN) -m build --outdir dist .
	docs/build/try_wheel.sh dist/*.whl $(sort $(PYTHON) $(NEWEST))

# What a release needs: the package, and all tests on both.
release: dist test
	$(MAKE) test PYTHON=$(NEWEST) VENV=.venv-newest

lint: $(VENV)/tested
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable .
	@touch $@

# The tests need no more of clip-benchmark than its reader of evaluation sets and its metrics.
$(VENV)/tested: $(VENV)/installed
	$(RUN) -m pip install --quiet --editable '.[dev]'
	$(RUN) -m pip install --quiet --no-deps clip-benchmark
	@touch $@

.venv-img2dataset/installed:
	$(PYTHON) -m venv .venv-img2dataset
	.venv-img2dataset/bin/python -m pip install --quiet 'img2dataset>=1.47' 'standard-imghdr; python_version >= "3.13"'
	@touch $@

clean:
	rm -rf .venv .venv-* pools results/demo site dist
