# make demo                trains a small model on real images that come with the repository, and draws its clusters
# make demo-segmentation   trains a small PaCa-head model on scenes of garments, from the demo's weights, and draws its predictions
# make demo-detection      trains a small Mask R-CNN on the same scenes, and draws its predictions
# make test                lint, types and every test
# make lint                lint and types only
# make test-versions       a part of the tests with the oldest and the newest versions of everything, on Python 3.11 to 3.13
# make docs                builds the site into site/: guides, notebooks, API
# make proof               long campaigns: runs that are killed or interrupted at any moment, or use other meshes; malformed inputs and
#                          mutated files; tests that are too long for the suite; every kernel compiled for every TPU; writes
#                          runs/proof/*.json and tables
# make clean               removes the environment and everything in runs/
#
# Each sets up a virtual environment in .venv first; PYTHON chooses the interpreter (3.11 or later).

PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2

# Keeps compiled programs, so that a resumed run starts in seconds.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.venv/compiled

.PHONY: demo demo-segmentation demo-detection test test-versions lint docs proof clean

demo: .venv/run.stamp
	$(BIN)/python main.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

demo-segmentation demo-detection: demo-%: demo
	$(BIN)/python -m paca_jax.data.prepare scenes --data_dir=runs/datasets
	$(BIN)/python main.py --config=configs/scenes_$*.py --workdir=runs/scenes_$*

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder

test-versions: .venv/dev.stamp
	$(BIN)/python -m tests.proof --out runs/proof --only versions

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/docs.stamp
	.venv/docs/bin/mkdocs build --strict

proof: .venv/dev.stamp
	$(BIN)/python -m tests.proof --out runs/proof

.venv/run.stamp: requirements.txt
	@$(PYTHON) -c "import sys; sys.exit('error: Expected Python 3.11 or later, got %d.%d. Run make PYTHON=python3.12, or another one.' % \
	sys.version_info[:2] if sys.version_info < (3, 11) else 0)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/dev.stamp: .venv/run.stamp requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

# An environment of its own: the site is built from the text of the library, which is not imported.
.venv/docs.stamp: requirements-docs.txt
	test -x .venv/docs/bin/python || $(PYTHON) -m venv .venv/docs
	.venv/docs/bin/python -m pip install --quiet -r requirements-docs.txt
	touch $@

clean:
	rm -rf .venv runs site build dist .pytest_cache .mypy_cache .ruff_cache
