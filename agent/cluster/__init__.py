# SPDX-License-Identifier: Apache-2.0
"""What was wanted of Cilium, and what it applied: its API, and Kubernetes."""
