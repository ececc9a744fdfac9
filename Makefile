# The commands of this project are the sessions of noxfile.py; `make help` lists them. Variables on
# make's command line reach them: NAME, an interpreter; WHAT, arguments; others as help says.
PYTHON ?= python3
RUN := $(PYTHON) -B tools/run.py

.DEFAULT_GOAL := help
SESSIONS := $(shell sed -nE 's/^@.*\(name="([a-z-]+)"\)$$/\1/p' noxfile.py)
.PHONY: help format clean native-aarch64 $(SESSIONS)

help: ## list these commands
	@$(RUN) help

$(SESSIONS):
	@$(RUN) $@ $(WHAT) $(QUICK) $(GUARD)

native-aarch64: ## native tests, cross-compiled for AArch64 and run under qemu
	@$(RUN) native aarch64

format: ## let the hooks of lint mend what they can
	@$(RUN) lint --mend

clean: ## remove what was built, environments included
	rm -rf build dist .venvs compile_commands.json
