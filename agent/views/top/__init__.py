# SPDX-License-Identifier: Apache-2.0
"""`top` on a terminal; what needs no textual stands in modules without it."""
