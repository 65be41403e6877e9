# SPDX-License-Identifier: Apache-2.0
"""Files in which what was seen is kept; each says its schema, with its version."""
