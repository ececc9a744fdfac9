# The commands of this project; `make help` lists them. The work is done by tools/*.py.
PYTHON ?= python3
TOOLS := $(PYTHON) -B tools
BENCH ?= 3.14
AARCH64 := build/native-aarch64

.DEFAULT_GOAL := help
.PHONY: help demo test test-all debug-tests stress test-layout test-tsan native-aarch64 \
        bench bench-guard lint format compile-commands clean

help: ## list these commands
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

demo: build-packages ## the main job: an echo server and thousands of clients, all of them greenlets
	@python=$$($(TOOLS)/environments.py ours) && $$python examples/echo_server.py

test: test-packages ## every test on the default interpreter: native, Python, contract, interop
	@$(TOOLS)/run_tests.py

test-all: test-packages ## Python and contract tests on every supported interpreter
	@$(TOOLS)/run_tests.py --suites python contract --interpreters all

debug-tests: test-packages ## Python tests on debug builds, at each allocation a collection
	@PYTEST_ADDOPTS="--gc-threshold 1 --timeout 900 -o faulthandler_timeout=930" \
	  $(TOOLS)/run_tests.py --suites python --interpreters 3.14t-debug 3.15-debug 3.15t-debug

stress: test-packages ## the long stress tests (NAME=3.15t for another interpreter)
	@python=$$($(TOOLS)/environments.py ours $(NAME)) && \
	  $$python -m pytest -m stress --timeout 3600 -o faulthandler_timeout=3660 tests/python

test-layout: test-packages ## a wheel on interpreters with a field more and less than it was built with
	@$(TOOLS)/layout_test.py

test-tsan: test-packages ## the tests about threads under ThreadSanitizer, on 3.15t-tsan
	@$(TOOLS)/tsan_test.py

native-aarch64: aarch64-packages ## native tests, cross-compiled for AArch64 and run under qemu
	@tools=$$(dirname $$($(TOOLS)/environments.py build)) && \
	  $$tools/cmake -S . -B $(AARCH64) -G Ninja -DCMAKE_MAKE_PROGRAM=$$tools/ninja \
	    -DCMAKE_TOOLCHAIN_FILE=tools/toolchains/aarch64-linux-gnu.cmake \
	    -DGREENLET_EXTENSION=OFF -DGREENLET_NATIVE_TESTS=ON && \
	  $$tools/cmake --build $(AARCH64) --parallel 2 && \
	  $$tools/ctest --test-dir $(AARCH64) --output-on-failure --no-tests=error --timeout 600

bench: build-packages ## compare with the published greenlet (BENCH=3.14)
	@ours=$$($(TOOLS)/environments.py ours $(BENCH) --extra bench) && \
	  published=$$($(TOOLS)/environments.py published $(BENCH) --extra bench) && \
	  $$ours benchmarks/compare.py --ours $$ours --published $$published

bench-guard: guard-packages ## count instructions: no more for a switch, a birth or a throw than before
	@python=$$($(TOOLS)/environments.py ours $(BENCH)) && \
	  $$python benchmarks/guard.py --python $$python $(GUARD)

lint: test-packages ## formatting, style and types of everything
	@$(TOOLS)/lint.py

format: test-packages ## format everything, and mend what ruff can
	@$(TOOLS)/lint.py --fix

compile-commands: test-packages ## compile_commands.json, for clangd
	@$(TOOLS)/lint.py --compile-commands

clean: ## remove what was built, environments included
	rm -rf build dist .venv .venvs compile_commands.json

.PHONY: build-packages test-packages guard-packages aarch64-packages
build-packages test-packages guard-packages aarch64-packages: %-packages:
	@$(TOOLS)/system_packages.py $*
