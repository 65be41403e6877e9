# SPDX-License-Identifier: Apache-2.0
"""Experiments on this machine, in network namespaces of their own."""
