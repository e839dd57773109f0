# The pipeline graph, and the developer's targets. `make help` lists them.

PYTHON   ?= python3
VENV     := .venv
BIN      := $(VENV)/bin
READY    := $(VENV)/.ready
RUN      ?= $(basename $(notdir $(PIPELINE)))
RUNS     ?= runs
SETTINGS := $(foreach setting,$(SET),--set '$(setting)')
OPTIONS   = --pipeline '$(PIPELINE)' --run '$(RUN)' --runs '$(RUNS)' $(SETTINGS)
STAGES   := ingest augment encode finetune transcribe score report

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test check format run terms plan learning-curve clean synth $(STAGES)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo "stages:         synth $(STAGES) (with PIPELINE=..., as for run)"

demo: $(READY) ## adapt the shipped base to the shipped clinical speech, and report
	@$(BIN)/python scripts/run.py --pipeline pipelines/demo.toml $(if $(RUN),--run '$(RUN)') --runs '$(RUNS)' $(SETTINGS)

run: $(READY) pipeline-named ## PIPELINE=pipelines/x.toml [RUN=name] [SET="a.b=c d.e=f"]: all stages
	@$(BIN)/python scripts/run.py $(OPTIONS)

terms: $(READY) ## TERMS=my_terms.txt [RUN=terms]: adapt to a term list without recordings, and report
	@test -n "$(TERMS)" || { echo "name a term list: make terms TERMS=my_terms.txt" >&2; exit 2; }
	@$(BIN)/python scripts/run.py --pipeline pipelines/synth.toml --run '$(or $(RUN),terms)' --runs '$(RUNS)' --set 'data.terms=$(TERMS)' $(SETTINGS)

plan: $(READY) pipeline-named ## PIPELINE=...: steps, time, disk and memory; starts nothing
	@$(BIN)/python scripts/run.py $(OPTIONS) --plan

learning-curve: $(READY) pipeline-named ## PIPELINE=... [SHARES="0.25 0.5"]: would more speech help? Some three runs
	@$(BIN)/python scripts/learning_curve.py $(OPTIONS) $(if $(SHARES),--shares $(SHARES))

$(STAGES) synth: $(READY) pipeline-named
	@$(BIN)/python scripts/$@.py $(OPTIONS)

.PHONY: pipeline-named
pipeline-named:
	@test -n "$(PIPELINE)" || { echo "name a pipeline: make $(MAKECMDGOALS) PIPELINE=pipelines/demo.toml" >&2; exit 2; }

# A test file a core at a time, each test on one thread.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

test: $(READY) ## all tests
	@$(TESTS)

check: $(READY) ## format, lint, types, tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(TESTS)

format: $(READY) ## rewrite the code in the house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## remove runs (data, manifests and the environment stay)
	rm -rf $(RUNS)

# The marker is written last: an install that was killed is taken up again. Where what it left cannot be mended
# (pip takes a package for installed once its metadata is there), the environment is made anew.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[voices,deploy,dev]'
CHECK   := $(BIN)/python -m pip check >/dev/null && $(BIN)/python -c \
	"import speechft.cli, torch, torchaudio, transformers, datasets, evaluate, jiwer, soundfile, peft"

$(READY): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing exact versions into $(VENV) (about 5 GB, some minutes)"
	@{ $(INSTALL) && $(CHECK); } || { echo "the environment is damaged: making it anew" >&2; \
	  $(PYTHON) -m venv --clear $(VENV) && $(INSTALL) && $(CHECK); }
	@touch $@
