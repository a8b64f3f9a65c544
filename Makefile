# make demo and make test need Python 3.11 or later and git, nothing else: they make .venv when there is none.
# make label installs MONAI Label beside it; make test then tests the app too.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test label lint export clean

demo: $(VENV)/demo.done
	$(PY) -m bundle demo demo_output

test: $(VENV)/test.done
	$(PY) -m ruff check bundle tests
	$(PY) -m pytest

label: .venv_label/label.done

# MONAI Label has an environment of its own: its packages and the bundle's do not go together
.venv_label/label.done: bundle/integrations/monai_label/install.sh bundle/integrations/monai_label/requirements.txt constraints.txt
	PYTHON=$(PYTHON) bundle/integrations/monai_label/install.sh .venv_label
	touch $@

lint: $(VENV)/test.done
	$(PY) -m ruff format bundle tests
	$(PY) -m ruff check --fix bundle tests

export: $(VENV)/test.done
	$(PY) -m bundle export

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first: with the pinned build in place nothing else pulls in another one
$(VENV)/demo.done: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PY) -m pip install -q -c constraints.txt torch
	$(PY) -m pip install -q -c constraints.txt -e ".[demo]"
	touch $@

$(VENV)/test.done: $(VENV)/demo.done
	$(PY) -m pip install -q -c constraints.txt -e ".[demo,test,cluster,tracking]"
	touch $@

clean:
	rm -rf $(VENV) .venv_label demo_output
