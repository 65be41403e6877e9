# SPDX-License-Identifier: Apache-2.0
"""A Snapshot in, text out. Views never import a source."""
