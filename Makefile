# `make demo` and `make test` need Python 3.11 or later and git; each makes .venv by itself.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
RUN = .venv/bin/python

.PHONY: demo test lint clean

demo: .venv/installed
	$(RUN) -m study run demo
	$(RUN) -m study report demo

test: lint
	$(RUN) -m pytest

lint: .venv/installed
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv pools results/demo
