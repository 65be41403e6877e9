# SPDX-License-Identifier: Apache-2.0
"""Where the chart's Grafana dashboards come from: `make dashboards` writes them."""
