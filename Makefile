# Everything happens in .venv: no root, nothing outside this folder. `make` lists the targets.
#
# Steps that are done leave a stamp inside .venv, so a repeated call does only its own work, and removing .venv
# forgets them all. An extra is installed again when pyproject.toml changes, the extensions are built again when
# one of their sources changes.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
STAMPS := $(VENV)/stamps

# One thread a worker: workers whose libraries all take every core are slower than no workers at all.
PYTEST_FLAGS ?= --numprocesses=auto --dist=loadfile
PYTEST := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(PY) -m pytest $(PYTEST_FLAGS)
DEMO := $(PY) examples/char_lstm.py --demo
BENCH := $(PY) -m benchmarks

FLAVOUR := $(if $(filter-out 0,$(MINIGRAD_DEBUG)),debug,release)
BUILT := $(STAMPS)/built-$(FLAVOUR)
SOURCES := setup.py $(wildcard minigrad/*.pyx minigrad/*.pxd minigrad/kernels/*.[ch] minigrad/kernels/*.py \
	minigrad/formula.py minigrad/op.py minigrad/ops/*.py)

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-gpu sanitize browser lint bench bench-gpu docs gallery build dist clean distclean

help:
	@echo "make demo            train a character LSTM and draw its unrolled graph"
	@echo "make test            run the test suite; ORACLES=1 compares with PyTorch as well"
	@echo "make sanitize        the recurrent kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make test-gpu        the operations, layers and optimisers on a GPU, under compute-sanitizer where it is installed"
	@echo "make bench-gpu       recurrent layers on a GPU beside PyTorch's cuDNN"
	@echo "make browser         install the browser that the page's tests drive (Debian, as root)"
	@echo "make lint            style and type checks"
	@echo "make bench           speed beside NumPy, PyTorch, autograd and MyGrad"
	@echo "make docs            the documentation, into docs/_build/html"
	@echo "make gallery         every kind of picture, and docs/gallery.md, which shows them"
	@echo "make build           the extensions, in place; MINIGRAD_DEBUG=1 with every check on"
	@echo "make dist            source archive and wheel, into dist/"
	@echo "make clean           remove what was built; make distclean removes $(VENV) too"

demo: $(BUILT) $(STAMPS)/with-render,data
	@$(DEMO)

test: $(BUILT) $(STAMPS)/with-test $(if $(filter-out 0,$(ORACLES)),$(STAMPS)/with-oracles)
	@$(PYTEST)

# On the real thing: without CuPy and a GPU these fail, rather than pass on the stand-in.
GPU_TESTS := tests/test_array_lanes.py tests/test_recurrent_lanes.py tests/test_cuda.py tests/test_nvrtc.py
test-gpu: $(BUILT) $(STAMPS)/with-test,cuda,cuda-test
	@MINIGRAD_TEST_CUPY=real $(PY) -m pytest -q -rs $(GPU_TESTS)
	@if command -v compute-sanitizer >/dev/null; then \
		MINIGRAD_TEST_CUPY=real CUPY_CACHE_SAVE_CUDA_SOURCE=0 compute-sanitizer --tool memcheck --error-exitcode 1 \
			$(PY) -m pytest -q -rs tests/test_recurrent_lanes.py tests/test_cuda.py; \
	else echo "not checked for memory errors: compute-sanitizer is not installed"; fi

# Best effort: without it the tests that need a browser are skipped and counted.
browser:
	@if command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing Chromium and its driver"; \
		export DEBIAN_FRONTEND=noninteractive; \
		{ timeout 300 apt-get -qq update && timeout 600 apt-get -qq install -y --no-install-recommends \
			chromium chromium-driver; } >/dev/null 2>&1 || echo "no browser: apt-get could not install one"; \
	else echo "no browser: install chromium and chromium-driver to run the page's tests"; fi

# NumPy's arrays come from the sanitizer's allocator too, so a step past their end is seen.
sanitize: build/sanitized.so $(BUILT) $(STAMPS)/with-test
	@MINIGRAD_KERNELS=$(PWD)/$< LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) PYTHONMALLOC=malloc \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		$(PY) -m pytest --quiet --capture=no -p no:cacheprovider tests/test_recurrent_kernels.py

build/sanitized.so: $(wildcard minigrad/kernels/*.[ch]) $(BUILT)
	@echo "building the kernels with sanitizers"
	@$(CC) -std=c11 -O1 -g -fPIC -shared -pthread -fno-math-errno -fno-trapping-math -fsanitize=address,undefined \
		-fno-sanitize-recover=undefined -fno-omit-frame-pointer minigrad/kernels/*.c -o $@ -lm

lint: $(BUILT) $(STAMPS)/with-lint
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@PATH="$$PWD/$(VENV)/bin:$$PATH" cython-lint minigrad  # it looks for pycodestyle on the path
	@$(PY) -m mypy

bench: $(BUILT) $(STAMPS)/with-bench
	@$(BENCH)

bench-gpu: $(BUILT) $(STAMPS)/with-cuda
	@$(PY) -m benchmarks gpu

docs: $(STAMPS)/with-docs gallery
	@$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

gallery: $(BUILT) $(STAMPS)/with-render
	@$(PY) docs/gallery.py

build: $(BUILT)

dist: $(STAMPS)/tools
	@$(PY) -c 'from setuptools import build_meta; print("dist/" + build_meta.build_sdist("dist"))' | tail -n 1
	@$(PIP) wheel --no-build-isolation --no-deps --wheel-dir dist "$$(ls -t dist/*.tar.gz | head -n 1)"

clean:
	@rm -rf build dist docs/_build docs/gallery docs/gallery.md *.egg-info minigrad/*.so minigrad/kernels/generated $(STAMPS)/built-*
	@rm -rf .coverage htmlcov .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find minigrad tests docs examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	@rm -rf $(VENV)

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "minigrad needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." >&2; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module. On Debian and Ubuntu it is in the package python3-venv." >&2; exit 2; }
	@$(PYTHON) -c 'import os, sysconfig; open(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null || { \
		echo "$(PYTHON) has no C headers. On Debian and Ubuntu they are in the package python3-dev." >&2; exit 2; }
	@command -v $(CC) >/dev/null || { \
		echo "There is no C compiler ($(CC)). Install one, or name it: make CC=clang $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# What the build needs, read from pyproject.toml, so that later steps build without isolation and without a wait.
$(STAMPS)/tools: pyproject.toml $(STAMPS)/venv
	@echo "installing the build tools"
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		> $(STAMPS)/requires.txt
	@$(PIP) install --requirement $(STAMPS)/requires.txt
	@touch $@

$(BUILT): $(SOURCES) $(STAMPS)/tools
	@echo "building the extensions ($(FLAVOUR))"
	@rm -f $(STAMPS)/built-*
	@$(PY) setup.py --quiet build_ext --inplace
	@touch $@

$(STAMPS)/with-%: pyproject.toml $(STAMPS)/tools
	@echo "installing minigrad-tape[$*]"
	@$(PIP) install --no-build-isolation --editable '.[$*]'
	@touch $@
