# SPDX-License-Identifier: Apache-2.0
# Targets: agent, and netperf, which is the agent with netperf. To run it, uid 0
# with CAP_BPF and CAP_PERFMON is enough, on a read-only root:
#
#   podman run --cap-drop ALL --cap-add BPF,PERFMON --read-only --network host …
#
# BCC, libbpf and libseccomp's Python module are the distribution's, so its python3 runs it all, in a venv of
# the same Debian that sees them. `make image` builds both.

# By digest, of all architectures; `make base` looks up the newest and writes it here.
ARG BASE=docker.io/library/debian:trixie-slim@sha256:a99cfc517144bc59b1978475ec53b46ecabec7e43635402ee5b77cc54cd1b20a

FROM ${BASE} AS base
# Debian's bytecode is valid for the times of its sources, and a build with --timestamp changes these: each start
# of a process on a read-only root would compile them again.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-bpfcc python3-seccomp libbpf1 \
 && python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.* \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

FROM base AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-pip
# A file of authorities, where the package index is behind one of your own.
ARG PIP_CERT
COPY requirements.lock requirements-build.lock /src/
# Also what Debian has in another version, or for itself alone: the lock counts.
RUN python3 -m venv --without-pip --system-site-packages /opt/bigtcp-agent \
 && python3 -m pip --python /opt/bigtcp-agent/bin/python install --no-cache-dir \
      --no-compile --ignore-installed --require-hashes -r /src/requirements.lock \
 && python3 -m pip install --no-cache-dir --target /opt/build --require-hashes \
      -r /src/requirements-build.lock
COPY . /src
# Never compiled again: the root is read-only, and nothing needs to be compared.
RUN PYTHONPATH=/opt/build python3 -m pip --python /opt/bigtcp-agent/bin/python install --no-cache-dir \
      --no-compile --no-deps --no-build-isolation /src \
 && find /opt/bigtcp-agent -type d -name tests -prune -exec rm -r {} + \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/bigtcp-agent

FROM base AS agent
ARG BASE
COPY --from=build /opt/bigtcp-agent /opt/bigtcp-agent
ENV PATH=/opt/bigtcp-agent/bin:/usr/sbin:/usr/bin
# agent.__version__; from which commit, only who builds can say:
# --label org.opencontainers.image.revision=$(git rev-parse HEAD)
LABEL org.opencontainers.image.title="bigtcp-agent" \
      org.opencontainers.image.description="Is BIG TCP really on? Counts skb lengths in the kernel and says." \
      org.opencontainers.image.licenses="Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.base.name="${BASE}"
EXPOSE 19715
# For Docker and Podman; Kubernetes has probes of its own. With another --listen,
# or TLS, give a --health-cmd of yours.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:19715/readyz', timeout=4)"]
ENTRYPOINT ["bigtcp-agent"]
CMD ["run"]

FROM agent AS netperf
RUN apt-get update \
 && apt-get install --yes --no-install-recommends netperf \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

# What a build without a target makes.
FROM agent
