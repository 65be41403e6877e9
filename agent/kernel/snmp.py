# SPDX-License-Identifier: Apache-2.0
"""Counters of the IP stack of the agent's own network namespace."""

import os


def ip6_in_too_big_errors() -> int:
    """IPv6 packets that this node did not forward: longer than the next MTU.

    Ip6InTooBigErrors of /proc/net/snmp6; 0 where there is no IPv6. OSError
    where it cannot be read.
    """
    try:
        with open("/proc/thread-self/net/snmp6") as file:
            for line in file:
                name, value = line.split()
                if name == "Ip6InTooBigErrors":
                    return int(value)
    except FileNotFoundError:
        os.stat("/proc/thread-self/net")  # or it is no answer at all
    return 0
