# SPDX-License-Identifier: Apache-2.0
# Two commands do everything on a fresh Debian machine: `make demo`, `make test`.

VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
export TOOLS := $(CACHE)/bigtcp-agent/debian
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

# What runs, what a test needs beside it.
PACKAGES := python3 python3-venv python3-bpfcc python3-seccomp libbpf1 iproute2 util-linux netperf
TEST_PACKAGES := gcc libc6-dev iptables ethtool libcap2-bin procps git ca-certificates openssl \
  chromium

CLUSTER_PACKAGES := openssl ca-certificates make
CLUSTER := env XDG_CACHE_HOME=$(CACHE) TOOLS=$(TOOLS) $(BIN)/python -m

.PHONY: help demo test test-more test-packages test-builds lint format bench test-kernels cluster cluster-down cluster-tools \
  test-cluster test-cilium record-cilium image image-again base chart-docs pictures dashboards \
  schemas lock clean
help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: $(BIN)/bigtcp-agent ## BIG TCP off and on, measured on this machine
	$(SUDO) $(BIN)/bigtcp-agent demo $(ARGS)

test: lint test-packages ## lint, types and all tests (root: they count real packets)
	.ci/unpack $(TOOLS) prometheus promtool
	$(SUDO) env TOOLS=$(TOOLS) $(BIN)/python -m pytest $(ARGS)

test-more: $(VENV)/dev test-packages ## ten minutes of pods that come and go (ARGS="--soak-seconds 60")
	$(SUDO) $(BIN)/python -m pytest -s --timeout=3600 tests/soak $(ARGS)

test-packages:
	.ci/packages $(TEST_PACKAGES)

test-builds: # the programs of test-cluster and test-cilium
	tests/cluster/tools --all >/dev/null
	tests/cilium/build 1.20.2 >/dev/null

lint: $(VENV)/dev ## style, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.[ch]')
	$(BIN)/mypy

format: $(VENV)/dev ## put Python and C into our format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $$(git ls-files '*.[ch]')

bench: $(VENV)/dev ## what a hook, a start, a scrape and a screen cost
	.ci/packages bpftrace
	$(SUDO) $(BIN)/python -m tests.bench $(ARGS)
	$(SUDO) $(BIN)/python -m tests.bench.top

test-kernels: ## load, count and read on Debian's 6.1 and 6.12 kernels (QEMU)
	tests/vm/run --timeout 2400 6.1 6.12 -- sh -ec 'pytest="python -m pytest -q -p no:cacheprovider"; \
	  $$pytest tests/kernel/test_counts.py tests/kernel/test_sockets.py tests/kernel/test_fast_lane.py \
	    tests/kernel/test_foreign.py; \
	  $$pytest tests/kernel/test_pods.py -k "exactly_its_packets or arrives_as_it_was"; \
	  $$pytest tests/kernel/test_without_capabilities.py tests/test_privileges.py; \
	  python -m agent demo --rounds 1; \
	  $$pytest tests/vm/test_lockdown.py'

cluster: cluster-tools ## a Kubernetes of two nodes on this machine, to try things
	$(SUDO) $(CLUSTER) tests.cluster up

cluster-down: $(BIN)/bigtcp-agent ## remove it, whatever happened to it
	$(SUDO) $(CLUSTER) tests.cluster down

test-cluster: cluster-tools image $(VENV)/dev ## tests on a cluster of their own, the chart's too
	tests/cluster/tools --all >/dev/null
	.ci/unpack $(TOOLS) prometheus promtool
	$(SUDO) $(CLUSTER) pytest --timeout=900 tests/chart tests/cluster tests/cluster_api $(ARGS)

test-cilium: $(VENV)/dev ## tests on a node with Cilium's own agent, built here
	.ci/packages $(CLUSTER_PACKAGES) iproute2 procps
	tests/cilium/build 1.20.2 >/dev/null
	tests/cluster/tools --kubernetes >/dev/null
	$(SUDO) $(CLUSTER) pytest --timeout=900 tests/cilium $(ARGS)

record-cilium: $(VENV)/dev ## record anew what Cilium's agents answer (VERSIONS="1.20.2 ...")
	.ci/packages $(CLUSTER_PACKAGES) iproute2 procps
	$(SUDO) $(CLUSTER) tests.cilium.record $(VERSIONS)

image: ## the images of Dockerfile, on a base made here
	$(SUDO) .ci/image $(CACHE)/bigtcp-agent/image

image-again: ## build them twice and compare their layers
	$(SUDO) .ci/image-again $(CACHE)/bigtcp-agent

base: ## write the newest digest of the base image into Dockerfile
	.ci/renew-base

chart-docs: cluster-tools ## the chart's README, from the comments in its values
	$(CACHE)/bigtcp-agent/cluster/bin/helm-docs -g charts/bigtcp-agent --sort-values-order file -l warn

cluster-tools: $(BIN)/bigtcp-agent
	.ci/packages $(CLUSTER_PACKAGES)
	tests/cluster/tools >/dev/null

# bcc comes from the distribution, so its python3 makes the environment.
$(BIN)/bigtcp-agent: requirements.lock pyproject.toml
	.ci/packages $(PACKAGES)
	/usr/bin/python3 -m venv --system-site-packages $(VENV)
	$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps --editable .
	@touch $@

$(VENV)/dev: $(BIN)/bigtcp-agent requirements-dev.lock
	$(BIN)/python -m pip install -q --require-hashes -r requirements-dev.lock
	@touch $@

pictures: $(VENV)/dev ## draw the README's pictures anew
	.ci/packages chromium fonts-dejavu-core
	$(SUDO) $(BIN)/python -m tests.pictures $(ARGS)

dashboards: $(VENV)/dev ## write the chart's Grafana dashboards anew
	$(BIN)/python -m charts.dashboards

schemas: $(VENV)/dev ## write the JSON Schemas in docs/ anew
	$(BIN)/python -m tests.schemas

lock: $(VENV)/dev ## renew the lock files from pyproject.toml
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile -q --upgrade pyproject.toml --generate-hashes --universal \
	  --python-version 3.11 --no-header -o requirements.lock
	$(BIN)/uv pip compile -q --upgrade pyproject.toml --extra dev --group build -c requirements.lock \
	  --generate-hashes --universal --python-version 3.11 --no-header -o requirements-dev.lock
	$(BIN)/uv pip compile -q --upgrade --group build -c requirements-dev.lock \
	  --generate-hashes --universal --python-version 3.11 --no-header -o requirements-build.lock

clean: ## remove what `make` made in this folder
	rm -rf $(VENV) dist
