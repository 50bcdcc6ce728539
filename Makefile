# make env      build $(VENV) and fetch the weights     make run    env, then the main job (profile mini)
# make test     env, then all tests                     make lab    env, then JupyterLab on notebooks/
# make bench    env, then the timing ratios             make full   env, then every notebook, uncut
# make lowest   tests with the oldest versions that pyproject.toml admits, in .venv-lowest
# make soak     env, then what takes long: kills at random, 20,000 images, 100,000 names (SEED=N: other random points)
# make mutate   env, then break the code on purpose, one way at a time: every break must fail a test
# make clean    remove $(VENV), its kernelspec and caches; runs/ and the fetched weights stay
#
# make env PYTHON=python3.12 VENV=/elsewhere            another Python, another place
# make -B env ...                                      install again, for example after changing one of these
# make env TORCH="torch==X torchvision==Y"              builds of PyTorch that exist for this machine
# make env PIP_ARGS="--extra-index-url URL"             passed on to pip, for example an index of CPU builds
PYTHON   ?= python3
VENV     ?= .venv
TORCH    ?=
SEED     ?= 0
PIP_ARGS ?=
PY       := $(VENV)/bin/python
STAMP    := $(VENV)/.installed

.PHONY: help env run test lowest lab bench full soak mutate clean
.DEFAULT_GOAL := help

help:
	@sed -n '/^# make/s/^# //p' Makefile

# The stamp is younger than pyproject.toml exactly when everything in it is installed: a second call installs nothing.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make env: sddlib needs Python 3.10 or newer, and '$(PYTHON)' is none (`$(PYTHON) -V 2>&1`): name one, as in make env PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv "$(VENV)" || { \
	  echo "make env: '$(PYTHON)' cannot build a virtual environment: install its venv module (python3-venv on Debian), or name another Python, as in make env PYTHON=python3.11" >&2; exit 1; }
	@$(PY) -m pip install --disable-pip-version-check $(PIP_ARGS) -e '.[notebooks,test]' $(TORCH) || { \
	  echo "make env: the installation failed, pip says above at what: without a network it cannot be done, and where torch or torchvision has no build for this machine, name versions that have one, as in make env TORCH=\"torch==2.9.1 torchvision==0.24.1\", or an index of CPU builds (pytorch.org says which), as in make env PIP_ARGS=\"--extra-index-url URL\"" >&2; exit 1; }
	@$(PY) -c 'import torch, torchvision' || { \
	  echo "make env: torch and torchvision are installed but do not work together on this machine: name a pair that does, as in make env TORCH=\"torch==2.9.1 torchvision==0.24.1\", or an index of CPU builds (pytorch.org says which), as in make env PIP_ARGS=\"--extra-index-url URL\"" >&2; exit 1; }
	@$(PY) -m ipykernel install --prefix "$(VENV)" --name sddlib --display-name "Python (sddlib)"
	@$(PY) -m ipykernel install --user --name sddlib --display-name "Python (sddlib)" || \
	  echo "make env: the kernel is registered inside $(VENV) only, a Jupyter outside will not list it" >&2
	@touch "$@"

env: $(STAMP)
	@$(PY) -m sddlib env

run: env
	$(PY) -m sddlib run all --profile mini

test: env
	$(PY) -m pytest

lowest: .venv-lowest/.installed
	@.venv-lowest/bin/python -m sddlib env
	.venv-lowest/bin/python -m pytest

.venv-lowest/.installed: pyproject.toml tests/lowest.txt
	@$(PYTHON) -m venv .venv-lowest
	@.venv-lowest/bin/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c tests/lowest.txt -e '.[notebooks,test]'
	@.venv-lowest/bin/python -m ipykernel install --prefix .venv-lowest --name sddlib --display-name "Python (sddlib, lowest)"
	@touch "$@"

lab: env
	$(PY) -m jupyterlab notebooks

bench: env
	$(PY) -m sddlib bench

full: env
	$(PY) -m sddlib run full --profile mini

soak: env
	$(PY) tests/soak.py --seed $(SEED)

mutate: env
	$(PY) tests/mutate.py

# The kernelspec outside is taken away only if it is this environment's own.
clean:
	@spec=`$(PY) -c 'import jupyter_core.paths as p; print(p.jupyter_data_dir())' 2>/dev/null`/kernels/sddlib; \
	if [ -f "$$spec/kernel.json" ] && grep -q "$(abspath $(VENV))/" "$$spec/kernel.json"; then rm -rf "$$spec"; fi
	rm -rf "$(VENV)" build dist *.egg-info .pytest_cache .ruff_cache
	find sddlib tests data notebooks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
