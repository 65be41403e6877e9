# SPDX-License-Identifier: Apache-2.0
"""`python -m agent` is `bigtcp-agent`."""

from agent.cli import main

main()
