# make demo       animate and lift examples/panorama.jpg into out/
# make test       run the tests that need no GPU
# make test-gpu   run the tests that need one
# make clean      remove what these targets made

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
NODE := $(CURDIR)/.venv/readers/node_modules
READERS := @playcanvas/splat-transform@2.7.1 @sparkjsdev/spark@2.2.0 three@0.187.0
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-gpu clean

demo: .venv/base.stamp
	$(BIN)/pano4d generate examples/panorama.jpg --mask examples/panorama_mask.png --out out --overwrite

test: .venv/test.stamp .venv/chromium.stamp .venv/readers.stamp
	PATH="$(NODE)/.bin:$$PATH" NODE_PATH="$(NODE)" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not gpu" -n auto --dist loadfile

test-gpu: .venv/test.stamp
	$(BIN)/python -m pytest -q -m gpu

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/base.stamp: setup.py pyproject.toml | .venv/bin/python
	$(INSTALL) --editable .
	@touch $@

# torch goes first and alone: whichever build the machine's index offers is then the one that stays.
.venv/test.stamp: setup.py pyproject.toml | .venv/bin/python
	$(INSTALL) "$(TORCH)"
	$(INSTALL) --editable ".[build,dev]"
	@touch $@ .venv/base.stamp

# The viewer's tests need a headless Chromium; where none can be installed they say so and are skipped.
.venv/chromium.stamp: | .venv/bin/python
	@if command -v chromium-headless-shell || command -v chromium || command -v google-chrome; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium-headless-shell; } >/dev/null 2>&1 \
	    || echo "chromium-headless-shell could not be installed: the viewer is not tested in a browser"; \
	else echo "no Chromium, and not root with apt-get: the viewer is not tested in a browser"; fi
	@touch $@

# Programs of others that read what is written; where there is no npm, tests with them say so and are skipped.
.venv/readers.stamp: | .venv/bin/python
	@npm install --silent --no-audit --no-fund --prefix .venv/readers $(READERS) 2>/dev/null \
	  || echo "npm could not install $(READERS): formats are not read by these"
	@touch $@

clean:
	rm -rf .venv build dist out pano4d.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
