# Everything the project installs lands in .venv; the only other thing touched is apt, for what is named below, and only
# where that needs no password. `make` alone lists the targets. Indexes, caches and proxies come from the environment.
#
# .venv/.* are stamps: a changed lock installs again, a second call costs next to nothing.

PYTHON ?= python3
ARGS ?=
# One more than there are cores: some tests wait for a server most of their time.
WORKERS ?= $(shell expr $$(nproc 2>/dev/null || echo 2) + 1)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

# The environment is made again when the checkout was moved (its scripts name their interpreter by absolute path), when its
# interpreter is gone, or when PYTHON is given and is another one than it was made with.
ifneq ($(file < $(VENV)/.place),$(CURDIR))
REMAKE := yes
endif
ifeq ($(wildcard $(BIN)/python),)
REMAKE := yes
endif
ifneq ($(filter command environment,$(firstword $(origin PYTHON))),)
ifneq ($(file < $(VENV)/.interpreter),$(PYTHON))
REMAKE := yes
endif
endif

# apt_install NAME...: installs Debian packages; fails where there is no apt, or no way to it without a password.
define APT_INSTALL
apt_install() { \
	command -v apt-get >/dev/null || return 1; \
	if [ "$$(id -u)" = 0 ]; then root=; elif sudo -n true 2>/dev/null; then root='sudo -n'; else return 1; fi; \
	echo "Installing $$* with apt"; \
	$$root apt-get -qq update || true; \
	$$root env DEBIAN_FRONTEND=noninteractive $${RUNLEVEL:+RUNLEVEL=$$RUNLEVEL} apt-get -qq install -y --no-install-recommends "$$@" >/dev/null; \
}
endef

.DEFAULT_GOAL := help
.PHONY: help setup run test lint bench chaos lock clean tools system-packages remake

help: ## List the targets (ARGS=... is passed on by run, test, bench and lock; PYTHON=... chooses the interpreter)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.project ## Make .venv with the pinned dependencies and the hub command in it

run: setup ## Start the hub with config.yaml; prints its address and how to log in
	@$(BIN)/hub serve $(ARGS)

test: tools system-packages ## Run the tests, with Chromium and PostgreSQL where they can be had (ARGS="-k name" narrows)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: tools ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup system-packages ## Measure ingest, start-up and memory
	$(BIN)/python -m bench $(ARGS)

chaos: tools system-packages ## Try the fault matrix (FULL=1 all of it, ENGINE=sqlite|postgresql|both, SEED=n, ARGS="--only F1")
	$(BIN)/python -m bench.chaos $(if $(FULL),--full) --engine $(or $(ENGINE),both) $(if $(SEED),--seed $(SEED)) $(ARGS)

lock: tools ## Write the lock files again from pyproject.toml (ARGS=--upgrade moves to the newest allowed versions)
	$(LOCK) --output-file requirements.lock pyproject.toml
	$(LOCK) --output-file tests/build.lock --group build
	$(LOCK) --output-file tests/requirements.lock --constraints requirements.lock --constraints tests/build.lock \
		--group test --group lint --group build --group lock pyproject.toml

clean: ## Remove .venv and what tools left behind; data/ stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find hub connectors tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# One lock serves 3.11 to 3.13 on every platform; hashes make a changed file at the index an error.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate $(ARGS)

# What another tool left in .venv (no stamp yet) is kept where the Python is the same.
$(VENV)/.place: $(if $(REMAKE),remake)
	@$(APT_INSTALL); \
	version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])') || \
		{ echo "$(PYTHON) cannot be run. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3 setup" >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is $$version. Name a newer one: make PYTHON=/path/to/python3 setup" >&2; exit 1; }; \
	if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		apt_install "python$$version-venv" && $(PYTHON) -c 'import ensurepip, venv' || \
			{ echo "$(PYTHON) cannot make virtual environments. As root: apt-get install python$$version-venv" >&2; exit 1; }; \
	fi; \
	clear=--clear; \
	if [ ! -e $@ ] && [ "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$$version" ]; then clear=; fi; \
	echo "Making $(VENV) with Python $$version"; \
	$(PYTHON) -m venv $$clear $(VENV)
	@printf '%s\n' '$(PYTHON)' > $(VENV)/.interpreter
	@printf '%s\n' '$(CURDIR)' > $@

remake: ;

# The build tools come from a lock of their own, so that the project's install takes nothing that is not pinned either.
$(VENV)/.runtime: $(VENV)/.place requirements.lock tests/build.lock
	@echo "Installing the dependencies"
	@$(PIP) install --require-hashes -r requirements.lock -r tests/build.lock
	@touch $@

$(VENV)/.project: $(VENV)/.runtime pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 -x '_py2[.]py' $(VENV)/lib hub connectors
	@touch $@

tools: $(VENV)/.tools
$(VENV)/.tools: $(VENV)/.project tests/requirements.lock
	@echo "Installing the tools for tests and checks"
	@$(PIP) install --require-hashes -r tests/requirements.lock
	@touch $@

# Neither is started: the tests run both themselves, on directories of their own. Debian's PostgreSQL package would make
# and start a cluster as it is installed; the setting that prevents that is there for this one installation.
NO_CLUSTER := /etc/postgresql-common/createcluster.d/support-hub.conf
system-packages:
	@$(APT_INSTALL); \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		apt_install chromium || echo "Chromium is missing: the browser tests will be skipped. As root: apt-get install chromium (Ubuntu: snap install chromium)" >&2; \
	{ command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || \
		{ apt_install postgresql-common && $$root mkdir -p '$(dir $(NO_CLUSTER))' && \
			echo 'create_main_cluster = false' | $$root tee '$(NO_CLUSTER)' >/dev/null && \
			{ apt_install postgresql; done=$$?; $$root rm -f '$(NO_CLUSTER)'; [ $$done = 0 ]; }; } || \
		echo "PostgreSQL is missing: its tests will be skipped. As root: apt-get install postgresql" >&2; \
	{ command -v dovecot || ls /usr/sbin/dovecot; } >/dev/null 2>&1 || \
		RUNLEVEL=1 apt_install dovecot-imapd || \
		echo "Dovecot is missing: the tests of reading a mailbox will be skipped. As root: apt-get install dovecot-imapd" >&2
