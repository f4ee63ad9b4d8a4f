# `make demo` and `make test` work on a fresh machine: they create .venv and install what they need.

PYTHON ?= python3
VENV := .venv
# `make demo TORCH=cpu` takes a build of torch for machines without a GPU, some gigabytes smaller. It is
# another version than the constraints name, so those do not hold then.
TORCH ?=
TORCH_CPU := https://download.pytorch.org/whl/cpu
CONSTRAINTS := $(if $(filter cpu,$(TORCH)),,-c constraints.txt)
BIN := $(VENV)/bin

.PHONY: demo test test-all chaos gpu lint audit torture clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(if $(filter cpu,$(TORCH)),$(BIN)/python -m pip install --quiet torch torchvision --index-url $(TORCH_CPU))
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	rm -rf demo && mkdir -p demo/photos
	$(BIN)/python -m benchmarks.photos demo/photos
	$(BIN)/gazecore score demo/photos --out demo/run
	$(BIN)/gazecore verify demo/run
	$(BIN)/gazecore predict demo/photos/* --out demo/overlays
	@echo "The Parquet is in demo/run, the pictures are in demo/overlays."

# Without a cluster side by side, a file to a core; what starts Ray one after the other.
APART := tests/gazecore $(wildcard tests/test_*.py)
IN_TURN := tests/cluster tests/jobs tests/nodes tests/chaos

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m 'not slow' -n auto --dist loadfile $(APART)
	$(BIN)/python -m pytest -m 'not slow' $(IN_TURN)

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist loadfile $(APART)
	$(BIN)/python -m pytest $(IN_TURN)

torture: $(VENV)/.installed
	rm -rf torture && mkdir -p torture
	$(BIN)/python -m tests.chaos.torture --runs 20 --out torture/table.json

# Ends and freezes processes of the Ray cluster at ADDRESS, which must be yours alone.
chaos: $(VENV)/.installed
	$(BIN)/python -m tests.chaos.strike --address $(ADDRESS)

# On a machine with a GPU. `make gpu BIN=/usr/bin` takes the packages that are there, and installs
# nothing; CORPUS is what `gazecore ingest` made of recorded fixations.
gpu: $(if $(filter $(VENV)/bin,$(BIN)),$(VENV)/.installed)
	$(BIN)/python3 -m benchmarks.gpu --out gpu $(if $(CORPUS),--corpus $(CORPUS))

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# In an environment of its own. --strict: a package that the index knows nothing of is no pass.
audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

clean:
	rm -rf $(VENV) $(VENV)-audit demo torture gpu .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
