# make demo   trains a small model on real images that ship with the library, and draws its clusters
# make demo-segmentation   a small PaCa-head model on scenes of garments, from the demo's weights; draws what it sees
# make demo-detection      a small Mask R-CNN on the same scenes; draws what it finds
# make test   lint, types and every test
# make proof  the long campaigns: kills at random moments, meshes; writes runs/proof/*.json and a table
# make lint   lint and types only
#
# Each sets up a virtual environment in .venv first; PYTHON chooses the interpreter (3.11 or later).

PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2

# Compiled programs are kept, so that a run that goes on starts in seconds.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.venv/compiled

.PHONY: demo demo-segmentation demo-detection test lint proof clean

demo: .venv/run.stamp
	$(BIN)/python main.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

demo-segmentation demo-detection: demo-%: demo
	$(BIN)/python -m paca_jax.data.prepare scenes --data_dir=runs/datasets
	$(BIN)/python main.py --config=configs/scenes_$*.py --workdir=runs/scenes_$*

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proof: .venv/dev.stamp
	$(BIN)/python -m tests.proof --out runs/proof

.venv/run.stamp: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/dev.stamp: .venv/run.stamp requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv runs build dist .pytest_cache .mypy_cache .ruff_cache
