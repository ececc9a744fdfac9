# The commands of this project; `make help` lists them. The work is done by tools/*.py.
PYTHON ?= python3
TOOLS := $(PYTHON) -B tools
BENCH ?= 3.14
RUNS ?= 1
AARCH64 := build/native-aarch64
NATIVE_BENCH := build/native-benchmarks
RESULTS := docs/performance

.DEFAULT_GOAL := help
.PHONY: help demo test test-all debug-tests stress exact-visits test-layout test-jit test-tsan \
        test-engines interop interop-load native-aarch64 bench bench-threads bench-native bench-report bench-guard wheels lint \
        format compile-commands clean

help: ## list these commands
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

demo: build-packages ## the main job: an echo server and thousands of clients, all of them greenlets
	@python=$$($(TOOLS)/environments.py ours) && $$python examples/echo_server.py

test: test-packages ## every test on the default interpreter: native, Python, contract, interop
	@$(TOOLS)/run_tests.py

test-all: test-packages ## Python and contract tests on every supported interpreter
	@$(TOOLS)/run_tests.py --suites python contract --interpreters all

debug-tests: test-packages ## Python tests on debug builds, at each allocation a collection
	@SUITE_MINUTES=90 PYTEST_ADDOPTS="--gc-threshold 1 --timeout 900 -o faulthandler_timeout=930" \
	  $(TOOLS)/run_tests.py --suites python --interpreters 3.14t-debug 3.15-debug 3.15t-debug

stress: test-packages ## the long stress tests (NAME=3.15t for another interpreter)
	@python=$$($(TOOLS)/environments.py ours $(NAME)) && \
	  $$python -m pytest -m stress --timeout 3600 -o faulthandler_timeout=3660 \
	    tests/python tests/interop

exact-visits: test-packages ## visits of the collector against references, at each opcode (ON="3.11 3.14t")
	@$(TOOLS)/exact_visits.py $(ON)

test-layout: test-packages ## wheels on interpreters with other structures than they were built with
	@$(TOOLS)/layout_test.py

test-jit: jit-packages ## the Python suite under CPython's JIT, in a Debian system of its own (as root)
	@$(TOOLS)/jit_test.py

test-tsan: test-packages ## the tests about threads under ThreadSanitizer, on 3.15t-tsan
	@$(TOOLS)/tsan_test.py

interop: interop-packages ## the suites of dependents with either greenlet, compared (hours; RUNS=3, ON="3.14 3.15t")
	@$(TOOLS)/interop.py --runs $(RUNS) $(if $(SUITES),--suites $(SUITES)) \
	  $(if $(ON),--interpreters $(ON))

interop-load: interop-packages ## what dependents do per second with either greenlet (BENCH=3.14)
	@$(TOOLS)/interop.py --load --runs 3 --interpreters $(BENCH)

# What cannot be installed is skipped by its test.
test-engines: test-packages ## the JVM, R, V8, Qt's JavaScript and others in greenlets (NAME=3.14)
	@$(TOOLS)/system_packages.py engines || true
	@python=$$($(TOOLS)/environments.py ours $(NAME)) && $$python -m pytest -m engines tests/interop

native-aarch64: aarch64-packages ## native tests, cross-compiled for AArch64 and run under qemu
	@tools=$$(dirname $$($(TOOLS)/environments.py build)) && \
	  $$tools/cmake -S . -B $(AARCH64) -G Ninja -DCMAKE_MAKE_PROGRAM=$$tools/ninja \
	    -DCMAKE_TOOLCHAIN_FILE=tools/toolchains/aarch64-linux-gnu.cmake \
	    -DGREENLET_EXTENSION=OFF -DGREENLET_NATIVE_TESTS=ON && \
	  $$tools/cmake --build $(AARCH64) --parallel 2 && \
	  $$tools/ctest --test-dir $(AARCH64) --output-on-failure --no-tests=error --timeout 600

bench: bench-packages ## compare with the published greenlet (BENCH=3.15t, QUICK=--quick, WHAT="switch create")
	@ours=$$($(TOOLS)/environments.py ours $(BENCH) --extra bench --if-possible gevent) && \
	  published=$$($(TOOLS)/environments.py published $(BENCH) --extra bench --if-possible gevent) && \
	  $$ours benchmarks/compare.py --ours $$ours --published $$published \
	    $(WHAT) $(if $(QUICK),$(QUICK),--json $(RESULTS)/$(BENCH).json)

bench-threads: bench-packages ## two threads against one on a free-threaded build (BENCH=3.15t)
	@ours=$$($(TOOLS)/environments.py ours $(BENCH)) && \
	  published=$$($(TOOLS)/environments.py published $(BENCH)) && \
	  $$ours benchmarks/scaling.py --ours $$ours --published $$published \
	    --json $(RESULTS)/scaling-$(BENCH).json

bench-native: bench-packages ## the context switch against Boost.Context, in C++
	@mkdir -p $(RESULTS) && tools=$$(dirname $$($(TOOLS)/environments.py build)) && \
	  $$tools/cmake -S benchmarks/native -B $(NATIVE_BENCH) -G Ninja \
	    -DCMAKE_MAKE_PROGRAM=$$tools/ninja && \
	  $$tools/cmake --build $(NATIVE_BENCH) && \
	  $(NATIVE_BENCH)/native_benchmarks --benchmark_filter='round_trip|create_run_finish' \
	    --benchmark_repetitions=9 --benchmark_enable_random_interleaving=true \
	    --benchmark_report_aggregates_only=true --benchmark_out=$(RESULTS)/native.json

bench-report: ## write docs/performance.md with its plots from what those have kept
	@$$($(TOOLS)/environments.py report) benchmarks/report.py $(RESULTS)

bench-guard: guard-packages ## count instructions of a switch, a birth, a throw: no more than before
	@python=$$($(TOOLS)/environments.py ours $(BENCH)) && \
	  $$python benchmarks/guard.py --python $$python $(GUARD)

wheels: test-packages ## sdist and wheels into dist/, checked (WHEELS="3.14 3.15t" for these alone)
	@$(TOOLS)/wheels.py $(WHEELS)

lint: test-packages ## formatting, style and types of everything
	@$(TOOLS)/lint.py

format: test-packages ## format everything, and mend what ruff can
	@$(TOOLS)/lint.py --fix

compile-commands: test-packages ## compile_commands.json, for clangd
	@$(TOOLS)/lint.py --compile-commands

clean: ## remove what was built, environments included
	rm -rf build dist .venv .venvs compile_commands.json

.PHONY: build-packages test-packages jit-packages bench-packages guard-packages interop-packages \
        aarch64-packages
build-packages test-packages jit-packages bench-packages guard-packages interop-packages \
aarch64-packages: %-packages:
	@$(TOOLS)/system_packages.py $*
