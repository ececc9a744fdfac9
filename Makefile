# The commands of this project are the sessions of noxfile.py; `make help` lists them. Variables on
# make's command line reach them: NAME, an interpreter; WHAT, arguments; others as help says.
PYTHON ?= python3
RUN := $(PYTHON) -B tools/run.py

.DEFAULT_GOAL := help
SESSIONS := $(shell sed -nE 's/^@.*\(name="([a-z-]+)"\)$$/\1/p' noxfile.py)
.PHONY: help format clean $(SESSIONS)

help:
	@$(RUN) help

$(SESSIONS):
	@$(RUN) $@ $(WHAT) $(QUICK) $(GUARD)

format:
	@$(RUN) lint --mend

clean:
	rm -rf build dist .venvs compile_commands.json
