// SPDX-License-Identifier: Apache-2.0
// Where the Prometheus operator's kinds are defined: only the files of its module are taken.
module operators

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
