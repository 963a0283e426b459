# imagestore's one door: every target sets up what it needs, once, in .venv.
# The environment is rebuilt when requirements.lock changes; otherwise nothing asks the network.

PORT ?= 19999
POOL ?= dir:pool
JOURNAL ?= journal
ROWS ?=
ROUNDS ?= 200
KILLS ?= 3
SEEDS ?= 1000
SLICE ?=
JOBS ?= 2
ARGS ?=

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
    $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/ready
CODE := imagestore tests benchmarks tools
ZFS_SECONDS := 1500
ZFS_TESTS = $(BIN)/python -m pytest -m zfs -p no:cacheprovider
ZFS_BREAKING := $(addprefix tests/zfs/test_,bad_input.py crash.py faults.py killed_fetch.py points.py)
SYSTEM_PACKAGES := btrfs-progs chromium debootstrap e2fsprogs gpg gpg-agent gpgv groff-base libvirt-clients libxml2-utils prometheus qemu-system-x86 qemu-utils skopeo strace systemd xfsprogs zfsutils-linux

# No setting of the person who calls us (find-links, user installs, proxies' mirrors) may change
# what the lock says; hashes decide what is installed.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help setup run demo check format test test-system test-zfs test-zfs-faults crash crash-zfs system-crash points-zfs sim mutants bench bench-zfs docs man package deb container screenshots lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  Settings: PORT=$(PORT) POOL=$(POOL) JOURNAL=$(JOURNAL) (run), ARGS=… (run, test, test-system, crash), ROUNDS=$(ROUNDS) (crash), KILLS=$(KILLS) (system-crash), SEEDS=$(SEEDS) JOBS=$(JOBS) (sim), ROWS=name (bench), SLICE=1 (test-zfs: the first machine alone)"

setup: $(READY) ## make .venv with everything in it, .venv/bin/imagestore included

run: $(READY) ## serve on the directory pool ./pool, journal in ./journal
	exec $(BIN)/imagestore serve --pool $(POOL) --journal $(JOURNAL) --port $(PORT) $(ARGS)

demo: $(READY) ## walk through a throw-away store: fetch, disks, snapshot, rollback, kill -9, restart
	$(BIN)/imagestore demo $(ARGS)

check: $(READY) ## lint, formatting and types, strict; takes seconds
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

format: $(READY) ## format the code and mend what the linter can mend
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

test: $(READY) ## all tests that need neither root nor Debian packages
	$(BIN)/python -m pytest -m 'not system and not zfs' $(ARGS)

test-system: $(READY) ## tests on loop-mounted xfs and btrfs and against Debian's tools; installs them, needs root
	@tools/system-packages $(SYSTEM_PACKAGES)
	$(BIN)/python -m pytest -m system $(ARGS)

crash: $(READY) ## kill -9 a store under random load, ROUNDS times; ARGS='--seed N' repeats a run
	$(BIN)/python -m tests.crash --rounds $(ROUNDS) $(ARGS)

test-zfs: $(READY) ## tests on real OpenZFS, in a virtual machine that it builds once; needs root on Debian 12
	tests/zfs/machine/run $(ZFS_SECONDS) $(ZFS_TESTS) tests/zfs $(addprefix --ignore=,$(ZFS_BREAKING)) $(ARGS)
	$(if $(SLICE),,+@$(MAKE) --no-print-directory test-zfs-faults)

# What breaks pools and kills stores does so in a machine of its own: it leaves that slow.
test-zfs-faults: $(READY) ## the second machine of test-zfs: faults of pools, rights and names, kills at named points
	tests/zfs/machine/run $(ZFS_SECONDS) $(ZFS_TESTS) $(ZFS_BREAKING) $(ARGS)

sim: $(READY) ## run SEEDS simulated histories of a whole store on JOBS processes; ARGS='--seed N' repeats one
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs $(JOBS) $(ARGS)

mutants: $(READY) ## plant each known mistake and see that the simulation, or its test, finds it; ARGS=name plants one
	$(BIN)/python -m tests.simulation.planting $(ARGS)

crash-zfs: $(READY) ## kill -9 a store under random load on real OpenZFS, ROUNDS times (about 35 s each), as test-zfs
	tests/zfs/machine/run $$(($(ROUNDS) * 120 + 300)) $(BIN)/python -m tests.zfs.crash --rounds $(ROUNDS) --verbose $(ARGS)

system-crash: $(READY) ## kill a virtual machine with a loaded store in it, KILLS times; as test-zfs
	$(BIN)/python -m tests.systemcrash --kills $(KILLS) $(ARGS)

points-zfs: $(READY) ## kill -9 a store on real OpenZFS at every point of every change, as test-zfs
	tests/zfs/machine/run 1200 env IMAGESTORE_TEST_EVERY_POINT=1 $(BIN)/python -m pytest -m zfs -p no:cacheprovider tests/zfs/test_points.py $(ARGS)

bench-zfs: $(READY) ## measure against zfs itself on real OpenZFS, as test-zfs
	tests/zfs/machine/run 2400 $(BIN)/python -m benchmarks zfs

bench: $(READY) ## measure against the targets and print one table; ROWS=journal,streams,store picks modules
	$(BIN)/python -m benchmarks $(ROWS)

docs: $(READY) ## write docs/reference.md anew from the code
	$(BIN)/python -m tools.reference

man: $(READY) ## write the manual pages into dist/man
	$(BIN)/python -m tools.man dist/man

package: deb ## build wheel, sdist and Debian package in dist/
	$(BIN)/python -m hatchling build --directory dist

deb: man ## build the Debian package in dist/, with all it needs but Python itself
	packages/deb $(abspath $(BIN)/python)

container: $(READY) ## build a container image in dist/ from a debootstrap root; needs root on Debian
	packages/container $(abspath $(BIN)/python)

screenshots: $(READY) ## take the pictures of the page in docs/images; needs chromium
	$(BIN)/python -m tests.page.screenshots docs/images

lock: pyproject.toml ## write requirements.lock anew from pyproject.toml (asks the network)
	@tools/lock "$(PYTHON)"

clean: ## remove .venv and all caches; pool and journal stay
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

$(READY): requirements.lock pyproject.toml
	@tools/setup "$(PYTHON)"
