# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# A thin front: Meson builds, scripts/ do what needs more than one command.

BUILD ?= build
PREFIX ?= /usr/local

.PHONY: all build demo check stress bench lab check-lab lab-kernel install clean

all: build

build:
	@scripts/deps.sh build
	@scripts/build.sh $(BUILD)

demo: build
	@$(BUILD)/uhmm demo

check:
	@scripts/deps.sh check
	@scripts/check.sh

# G5: a million operations and more, then as many with failing system calls.
stress: build
	@$(BUILD)/tests/stress/stress --ops 1000000
	@$(BUILD)/tests/stress/stress_inject --inject --ops 300000
	@tests/stress/swap.sh $(BUILD)/tests/stress/stress --ops 200000 || [ $$? -eq 77 ]
	@$(BUILD)/tests/stress/stress_inject --scene open
	@$(BUILD)/tests/stress/stress --scene lost
	@$(BUILD)/tests/stress/stress --scene scatter --pages 100000
	@$(BUILD)/tests/stress/stress_odp --ops 1000000
	@$(BUILD)/tests/stress/stress_odp --wrong-model --seconds 5
	@$(BUILD)/tests/stress/stress_svm --ops 20000

bench: build
	@$(BUILD)/uhmm bench

# A virtual machine with what this one lacks (lab/README.md): its image, and that it starts.
lab: export UHMM_LAB_BUILD = $(abspath $(BUILD))
lab:
	@scripts/deps.sh lab
	@scripts/build.sh $(BUILD)
	@lab/run.sh premises

check-lab: export UHMM_LAB_BUILD = $(abspath $(BUILD))
check-lab:
	@scripts/deps.sh lab
	@scripts/build.sh $(BUILD)
	@lab/run.sh

# A kernel with IOMMUFD, which check-lab uses when it is there: about ten minutes, once.
lab-kernel:
	@scripts/deps.sh lab-kernel
	@lab/kernel.sh

install: build
	@meson configure $(BUILD) --prefix $(PREFIX)
	@meson install -C $(BUILD)

clean:
	rm -rf build build-asan build-tsan build-fuzz
