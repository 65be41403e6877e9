# SPDX-License-Identifier: Apache-2.0
"""bigtcp-agent: is BIG TCP really on? It counts the packets and says."""

import os

# numpy's OpenBLAS starts a thread for every CPU when it is imported. Nothing here
# multiplies matrices, and those threads would keep their capabilities.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
