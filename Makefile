# make demo and make test need Python 3.11 or later and git, nothing else: they make .venv when there is none.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test lint export clean

demo: $(VENV)/demo.done
	$(PY) -m bundle demo demo_output

test: $(VENV)/test.done
	$(PY) -m ruff check bundle tests
	$(PY) -m pytest

lint: $(VENV)/test.done
	$(PY) -m ruff format bundle tests
	$(PY) -m ruff check --fix bundle tests

export: $(VENV)/test.done
	$(PY) -m monai.bundle ckpt_export --net_id network_def --filepath models/model.ts --ckpt_file models/model.pt \
		--meta_file configs/metadata.json --config_file configs/inference.json

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first: with the pinned build in place nothing else pulls in another one
$(VENV)/demo.done: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PY) -m pip install -q -c constraints.txt torch
	$(PY) -m pip install -q -c constraints.txt -e ".[demo]"
	touch $@

$(VENV)/test.done: $(VENV)/demo.done
	$(PY) -m pip install -q -c constraints.txt -e ".[demo,test,cluster]"
	touch $@

clean:
	rm -rf $(VENV) demo_output
