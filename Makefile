# Everything a fresh machine needs, done once and used again: each step leaves a stamp in .make/ and runs again only when its inputs change.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := .make
CARGO_FUZZ := $(STAMPS)/cargo/bin/cargo-fuzz
CARGO_FUZZ_VERSION := 0.13.1
FUZZ_SECONDS ?= 10
# The tests wait more than they compute: a few processes, each with files of its own. `make test SIDE_BY_SIDE=` runs them one after another.
SIDE_BY_SIDE ?= -p no:benchmark -n 3 --dist loadfile

RUST_SOURCES := $(shell find rust Cargo.toml Cargo.lock -name target -prune -o -path rust/fuzz -prune -o -path rust/model -prune -o -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.lock' \) -print)

# Cargo finds the interpreter of the `python` feature here, whatever is first in PATH.
export PYO3_PYTHON := $(CURDIR)/$(VENV)/bin/python

.PHONY: setup demo test lint format bench fuzz fuzz-long crash-long model-long man lock clean

setup: $(STAMPS)/extension

$(STAMPS)/tools: .ci/tools
	@mkdir -p $(@D)
	.ci/tools build
	@touch $@

$(STAMPS)/venv: constraints.txt | $(STAMPS)/tools
	@mkdir -p $(@D)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "snapferry needs Python 3.11 or later; run: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@touch $@

$(STAMPS)/extension: $(STAMPS)/venv pyproject.toml $(RUST_SOURCES)
	PIP_QUIET=1 VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet
	@touch $@

$(STAMPS)/test-tools: .ci/tools
	@mkdir -p $(@D)
	.ci/tools test
	@touch $@

$(STAMPS)/demo-tools: .ci/tools
	@mkdir -p $(@D)
	.ci/tools demo
	@touch $@

demo: setup $(STAMPS)/demo-tools
	$(BIN)/snapferry demo

test: setup $(STAMPS)/test-tools
	cargo test --locked --workspace
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest snapferry._core --mypy-config-file pyproject.toml --allowlist .ci/stubtest-allowlist --ignore-unused-allowlist
	$(BIN)/lint-imports
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --manifest-path rust/Cargo.toml --all-targets --features python -- -D warnings

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	cargo fmt --all

# BENCH_ARGS=--benchmark-disable runs each once, untimed.
bench: setup $(STAMPS)/test-tools
	$(BIN)/python -m pytest benches --timeout 0 $(BENCH_ARGS)

$(CARGO_FUZZ):
	cargo install cargo-fuzz --quiet --locked --version $(CARGO_FUZZ_VERSION) --root $(STAMPS)/cargo

# libFuzzer's instrumentation is an unstable flag; RUSTC_BOOTSTRAP lets the stable compiler take it.
fuzz: $(CARGO_FUZZ)
	@set -e; export RUSTC_BOOTSTRAP=1 PATH="$(CURDIR)/$(STAMPS)/cargo/bin:$$PATH"; cd rust; \
	cargo fuzz build --sanitizer none; \
	for target in $$(cargo fuzz list); do \
	    echo "fuzz $$target for $(FUZZ_SECONDS) s"; \
	    cargo fuzz run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=10 -verbosity=0 -print_final_stats=1; \
	done

fuzz-long:
	$(MAKE) fuzz FUZZ_SECONDS=1800

# Renews what is shipped beside the package: manual pages, and completion for bash, zsh and fish. Both come from the commands.
SHARE := packaging/data/share
man: setup
	rm -rf $(SHARE)
	mkdir -p $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(BIN)/snapferry man --directory $(SHARE)/man/man1
	$(BIN)/snapferry completion bash > $(SHARE)/bash-completion/completions/snapferry
	$(BIN)/snapferry completion zsh > $(SHARE)/zsh/site-functions/_snapferry
	$(BIN)/snapferry completion fish > $(SHARE)/fish/vendor_completions.d/snapferry.fish

# The crash tests at every single point, instead of at some.
crash-long: setup $(STAMPS)/test-tools
	SNAPFERRY_KILL_EVERY=1 $(BIN)/python -m pytest tests/crash

# The deletion protocol with two writers, two collectors, two collections and forgets, to the end: five minutes and 4 GiB of memory on two processors.
# MODEL=NoWait shows what comes of that rule being broken; MODEL= names the rules and settings.
MODEL ?= long
model-long:
	cargo run --release --locked --package snapferry-deletion-model -- $(MODEL)

# Renews constraints.txt from pyproject.toml: the newest versions, every file's hash, no addresses.
lock: $(STAMPS)/tools
	@test -x $(STAMPS)/uv/bin/uv || { $(PYTHON) -m venv $(STAMPS)/uv && $(STAMPS)/uv/bin/pip install --quiet uv; }
	$(STAMPS)/uv/bin/uv pip compile --quiet pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file constraints.txt

clean:
	rm -rf $(VENV) $(STAMPS) target rust/fuzz/target .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .import_linter_cache
	rm -f python/snapferry/_core*.so
