# SPDX-License-Identifier: Apache-2.0
"""The picture: one immutable Snapshot, and what can be told from it."""
