# `make` alone says what there is. Every target sets up what it needs first.
.DEFAULT_GOAL := help
.PHONY: help setup venv demo serve test check unit lint storm kills faults soak bench bench-peers growth dist lock clean

PYTHON := .venv/bin/python

help:  ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: venv  ## make .venv, find or start Docker Engine, build the images
	@$(PYTHON) scripts/engine.py

venv:  ## make .venv only
	@scripts/venv

demo: $(if $(URL),venv,setup)  ## run a real analysis in a sandbox; URL=… TOKEN=… uses a running controller
	@$(if $(URL),SANDBOX_URL='$(URL)' SANDBOX_TOKEN='$(TOKEN)') $(PYTHON) -m scripts.demo

serve: setup  ## serve MCP at http://127.0.0.1:8000/mcp/v1
	@.venv/bin/sandbox serve

test: setup lint  ## run every test, under runc and under runsc
	@scripts/test

check: lint unit  ## what every commit passes: lint and the unit tests, without an engine

# Three workers for two processors, since tests also wait; who has nothing left to do takes over from
# the others. Compiled modules are kept for the many processes that the tests start.
unit: venv  ## the unit tests
	@PYTHONDONTWRITEBYTECODE= scripts/tried --numprocesses 3 --dist worksteal $(PYTEST) tests/unit

lint: venv  ## ruff and pyright
	@$(PYTHON) -m ruff check .
	@NODE_DISABLE_COMPILE_CACHE=1 $(PYTHON) -m pyright

storm: setup  ## attack a controller for MINUTES (10), in the order of SEED (1), beside two honest callers
	@$(PYTHON) -m scripts.storm --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1)

kills: setup  ## kill a controller TIMES (50) times at random moments, and look at what the next one finds
	@$(PYTHON) -m scripts.kills --times $(or $(TIMES),50) --seed $(or $(SEED),1)

faults: setup  ## run tests/faults TIMES (20) times, from SEED (1) on each with another one, until one fails
	@scripts/faults $(or $(TIMES),20) $(or $(SEED),1)

soak: setup  ## use a controller for MINUTES (10) with many clients and 200 sessions; nothing may leak
	@$(PYTHON) -m scripts.soak --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1)

growth: setup  ## measure what a cell and an opening cost at 1 to 200 live sessions, and plot it
	@$(PYTHON) -m benchmarks.growth

bench: setup  ## measure, and print ratios against docker run and a bare kernel; ONLY=… some of it
	@$(PYTHON) -m benchmarks $(ONLY)

bench-peers: setup  ## measure beside other executors, in turns; ONLY=… some of them; QUICK=1 for a look
	@$(PYTHON) -m benchmarks.peers $(if $(QUICK),--quick) $(ONLY)

dist: venv  ## build the wheel, the sdist, the desktop bundle and server.json; RELEASE=… says where they will be
	@$(PYTHON) -m scripts.dist --release '$(RELEASE)'

lock: venv  ## resolve every dependency anew
	@scripts/lock

clean:  ## remove what the other targets made in this folder
	rm -rf .venv .hypothesis .pytest_cache .ruff_cache build dist demo-output
	find . -name __pycache__ -prune -exec rm -rf {} +
