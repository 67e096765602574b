# `make help` prints the ## notes. Everything runs in .venv; nothing is installed outside this folder.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-unit test-chaos test-cluster check format docs lock bench bench-cluster bench-scale study study-clipart study-text study-guidance clipart emoji clean
.PHONY: image image-check full-image cluster-up cluster-down

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export GOMP_SPINCOUNT ?= 10000
unexport PYTHONDONTWRITEBYTECODE    # a process would compile the project each time that it starts
# Test files side by side, each file in one process of one thread: small tensors gain nothing from a second.
JOBS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --durations 15
UV := UV_LINK_MODE=$(or $(UV_LINK_MODE),hardlink) $(BIN)/uv

help: ## print these notes
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: .venv/.ready ## make .venv from requirements.lock (about a minute, about 7 GB)

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## train on 5,000 handwritten digits and generate new ones: all nine stages (eight minutes on two cores)
	rcg repro --parallel
	rcg register

test: setup ## every test that needs no cluster and no GPU
	$(PYTEST) -m "not cluster and not gpu$(if $(WITHOUT), and not $(WITHOUT))"

test-long: setup # those of them that take minutes each
	$(PYTEST) --timeout 1800 -m long

test-unit: setup ## the fast tests only
	$(PYTEST) -m "not processes" tests/unit tests/contract tests/reference tests/repo

test-chaos: setup ## kills, failing disks, flipped bytes, hostile files: several hundred trials (SECONDS=1800); goes on where it stopped
	CHAOS_MORE=20 pytest -q tests/chaos/test_readers.py tests/chaos/test_checkpoints.py tests/chaos/test_arrow.py tests/chaos/test_bombs.py
	OMP_NUM_THREADS=1 python -m tests.chaos --seconds $(or $(SECONDS),1800)

test-cluster: setup ## the tests on a real one-node Kubernetes (root; scripts in RCG_RIGS, default ../shared)
	RCG_CLUSTER_REQUIRED=1 pytest -m cluster --durations 20 tests/cluster

check: setup ## lint, types, import contracts, generated docs
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	python docs/generate.py --check

format: setup ## let ruff rewrite what it can
	ruff check --fix .
	ruff format .

docs: setup ## rewrite docs/reference from the code
	python docs/generate.py

lock: ## resolve requirements.lock anew
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra dev --extra cluster --extra server --extra text --extra play pyproject.toml -o requirements.lock
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements.lock k8s/mlflow/requirements.in -o k8s/mlflow/requirements.lock

bench: setup ## speed and memory, as ratios in one run
	python -m benchmarks.bench

bench-cluster: setup ## what a cluster and a bucket cost a stage (root; the test cluster)
	python -m benchmarks.cluster

bench-scale: setup ## memory and time of long lists; N="1000000 10000000" pictures
	python -m benchmarks.scale $(N)
	python -m benchmarks.loader

study: setup ## RCG against its baselines on digits, three seeds; writes docs/results/digits.md
	python -m benchmarks.study

study-clipart: data/clipart ## the same on color clip art, RCG against unconditional, with MAGE and with DiT
	python -m benchmarks.study clipart-mage clipart-dit

study-text: setup ## priors of text on captioned digits, three seeds (under an hour); writes docs/results/text.md
	python -m benchmarks.study_text 0 1 2
	python -m benchmarks.study_mixture

study-guidance: setup ## guides against classifier-free guidance, and inpainting (under an hour); writes docs/results/guidance-pixels.md
	python -m benchmarks.study_guidance 0 1 2

clipart: data/clipart ## a second collection: 2,900 color clip-art pictures from a Debian package

data/clipart: examples/clipart.py | setup
	python examples/clipart.py data/clipart

emoji: data/emoji ## a third collection: 3,750 emoji in two styles with names and keywords, from packages of npm

data/emoji: examples/emoji.py | setup
	python examples/emoji.py data/emoji

image: setup ## the image of the stages; FLAVOR=gpu|cpu, IMAGE=registry/rcg, PUSH=1 (docker, podman or buildah)
	k8s/build-image $(or $(FLAVOR),gpu)

image-check: setup ## build the CPU image on the test cluster and run a stage's command in it (about ten minutes)
	RCG_CLUSTER_REQUIRED=1 RCG_CLUSTER_FULL_IMAGE=1 pytest -m cluster tests/cluster/test_image.py

full-image: setup # build and import the CPU image, which image-check would do first
	python -m tests.support.cluster_rig image

cluster-up: setup ## the test cluster with an S3 server and k8s/overlays/local; says how to use it
	python -m tests.support.cluster_rig up

cluster-down: ## stop the test cluster
	python -m tests.support.cluster_rig down

clean: ## remove the virtual environment and caches; artifacts and the store stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info
