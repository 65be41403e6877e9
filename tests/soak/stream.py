# SPDX-License-Identifier: Apache-2.0
"""A TCP stream of a bounded rate, a process each: `python -m tests.soak.stream sink
ADDRESS`, `… source ADDRESS MEGABYTES_PER_SECOND`. Both run until they are killed.
"""

import socket
import sys
import time

PORT = 9
_CHUNK = bytes(1 << 20)


def sink(address: str) -> None:
    with socket.create_server((address, PORT)) as listener:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1 << 20):
                pass


def source(address: str, rate: float) -> None:
    """In chunks of 1 MiB; what it could not send in time it does not make up for."""
    while True:
        try:
            connection = socket.create_connection((address, PORT))
            break
        except OSError:  # nobody listens yet
            time.sleep(0.05)
    with connection:
        due = time.monotonic()
        while True:
            connection.sendall(_CHUNK)
            due = max(due + 1 / rate, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    if sys.argv[1] == "sink":
        sink(sys.argv[2])
    else:
        source(sys.argv[2], float(sys.argv[3]))
