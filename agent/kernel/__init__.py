# SPDX-License-Identifier: Apache-2.0
"""What the kernel does: programs that count, the maps they fill, and links."""
