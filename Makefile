# Every command a person types. Each sets up what it needs, once.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { echo $$python; break; }; done)
CHAPTERS := $(sort $(wildcard 0[1-5]_*/requirements.txt))
NUMBERS := $(foreach chapter,$(CHAPTERS),$(firstword $(subst _, ,$(chapter))))
NODE := $(foreach lock,$(wildcard 0[1-5]_*/package-lock.json),$(dir $(lock))node_modules/.ready)
BIN := .venv/bin
RUN := PYTHONPATH=. $(BIN)/python -m
# uv trusts what the system trusts, as pip does: a company's proxy may have its own certificate.
export UV_SYSTEM_CERTS ?= true
INSTALL := VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --compile-bytecode --constraint requirements.txt

.DEFAULT_GOAL := help
.PHONY: help tour test test-all test-times check results prepare notebooks notebooks-run notebooks-plan contenders sabotage diffs lock \
	load kill fault trouble mailbox clean $(NUMBERS)

help:  ## This list
	@echo "Flask, Unblocked. The commands:"
	@sed -n 's/^\([a-z0-9 -]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-21s %s\n", $$1, $$2 }'
	@for number in $(NUMBERS); do printf "%-21s %s\n" "  make $$number" "Run chapter $$number and say which page to open"; done

tour: .venv/.tour  ## The same measurement in every chapter, and one table
	@$(RUN) lab tour

test: .venv/.test $(NODE)  ## The tests, in some minutes
	@$(RUN) lab test

test-all: .venv/.test $(NODE)  ## Every test, also the long ones: whole fault tables, hosts, all notebooks
	@$(RUN) lab test --all

test-times: .venv/.test  ## Where the time of the last tests went
	@$(RUN) lab test --times

check: .venv/.test  ## Style, types, what differs between chapters, numbers in prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lab tests
	@for chapter in $(dir $(CHAPTERS)); do echo mypy $$chapter; (cd $$chapter && ../$(BIN)/mypy .) || exit 1; done
	$(RUN) lab stages
	$(RUN) lab pages

$(NUMBERS): .venv/.tour $(NODE)
	@$(RUN) lab run $@

load: .venv/.tour $(NODE)  ## Locust on a chapter: make load CHAPTER=02, or with SHAPE=Ramp without its page
	@$(RUN) lab load $(or $(CHAPTER),05) $(if $(SHAPE),--shape $(SHAPE)) $(if $(USERS),--users $(USERS)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(WHO),--who "$(WHO)")

kill: .venv/.tour  ## Kill a process of the running chapter: make kill NAME=web
	@$(RUN) lab kill $(or $(NAME),web) --signal $(or $(SIGNAL),SIGKILL)

fault: .venv/.tour  ## Break the running chapter 04: make fault NAME=flood, then NAME=mend
	@$(RUN) lab fault $(NAME)

trouble: .venv/.notebooks  ## Make a trouble of TROUBLESHOOTING.md happen: make trouble NAME=pending
	@$(RUN) lab trouble $(NAME)

mailbox: .venv/.tour  ## Who got mail from the running chapter
	@$(RUN) lab mailbox

prepare: .venv/.contenders $(NODE)  ## Fetch all that a class needs, while there is a network
	@echo "A class needs nothing more from the network. What else to do: INSTRUCTORS.md"

notebooks: .venv/.notebooks  ## JupyterLab with the notebooks
	PYTHONPATH=$(CURDIR) $(BIN)/jupyter lab --notebook-dir notebooks

notebooks-run: .venv/.notebooks  ## Run the notebooks (or NAMES="01 02") and keep their outputs
	@$(RUN) lab notebooks $(NAMES)

notebooks-plan: .venv/.notebooks  ## The minutes of a half day and a full day in front of a class
	@$(RUN) lab plan

contenders: .venv/.contenders  ## Install what notebook 06 compares Celery with

results: .venv/.test  ## Measure every figure anew (or FIGURES=01_slots) and put it into the prose
	$(RUN) lab figures $(FIGURES)
	$(if $(FIGURES),,$(RUN) lab tour --keep)
	$(RUN) lab pages --write

sabotage: .venv/.test $(NODE)  ## Harm a copy, one line at a time: do the tests notice? (or NAMES="07")
	@$(RUN) lab sabotage $(NAMES)

diffs: .venv/.tour  ## Write each chapter's DIFF.md anew
	@$(RUN) lab stages --write

lock: .venv/.uv  ## Resolve requirements.in into requirements.txt, at today's versions
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --upgrade --python-version 3.11 requirements.in --output-file requirements.txt

clean:  ## Remove the virtual environment, caches and your own results
	rm -rf .venv .lab 0*/node_modules .pytest_cache .ruff_cache .mypy_cache .hypothesis results/local
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up. Each stamp stands for one installed set of packages; all of them come from the
# lock, whose hashes uv checks.

.venv/.uv: requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed, and none was found. Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Setting up .venv with $(PYTHON) …"
	@$(PYTHON) -m venv .venv || { echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.txt > .venv/uv.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	@touch $@

.venv/.tour: .venv/.uv lab/requirements.txt $(CHAPTERS)
	@echo "Installing what the chapters and the lab need …"
	@$(INSTALL) $(foreach file,lab/requirements.txt $(CHAPTERS),-r $(file))
	@touch $@

# Socket.IO's client for the browser. Without npm the page takes it from its CDN, or asks.
%/node_modules/.ready: %/package-lock.json
	@if command -v npm >/dev/null; then (cd $* && npm ci --silent --no-audit --no-fund && touch node_modules/.ready); \
	else echo "npm is not here: the page of $* takes Socket.IO's client from its CDN."; fi

.venv/.notebooks: .venv/.tour notebooks/requirements.txt
	@echo "Installing what the notebooks need …"
	@$(INSTALL) -r notebooks/requirements.txt
	@touch $@

.venv/.contenders: .venv/.notebooks notebooks/contenders/requirements.txt
	@echo "Installing RQ, Dramatiq, Huey, FastAPI and Quart …"
	@$(INSTALL) -r notebooks/contenders/requirements.txt
	@touch $@

.venv/.test: .venv/.contenders tests/requirements.txt
	@echo "Installing what the tests need …"
	@$(INSTALL) -r tests/requirements.txt
	@touch $@
