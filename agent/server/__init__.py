# SPDX-License-Identifier: Apache-2.0
"""The web server of the agent: connections, who may ask, and what is answered."""
