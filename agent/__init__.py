# SPDX-License-Identifier: Apache-2.0
"""bigtcp-agent: is BIG TCP really on? It counts the packets and says."""

__version__ = "0.1.0"
