# SPDX-License-Identifier: Apache-2.0
"""What is slow does not make those wait who ask."""

import threading
from collections.abc import Iterator

import pytest

from agent.cluster.polled import Polled
from agent.lab.netns import wait_until


def test_the_last_answer() -> None:
    answers: Iterator[int | OSError] = iter([1, OSError("gone"), 3])

    def read() -> int:
        answer = next(answers, 4)
        if isinstance(answer, OSError):
            raise answer
        return answer

    seen: list[object] = []
    with Polled(read, 0.05) as polled:

        def look() -> bool:
            try:
                seen.append(polled.get())
            except OSError as err:
                seen.append(str(err))
            return seen[-1] == 4

        wait_until(look, "the fourth answer")
    assert list(dict.fromkeys(seen)) == [1, "gone", 3, 4]


def test_one_that_hangs_is_waited_for_once() -> None:
    over, hangs = threading.Event(), threading.Event()

    def read() -> str:
        if hangs.is_set():
            over.wait(10)
        hangs.set()
        return "good"

    with Polled(read, 0) as polled:
        for _ in range(1000):
            assert polled.get() == "good"
        over.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_is_no_answer() -> None:
    def read() -> int:
        raise KeyError("ours")

    with Polled(read, 0) as polled:
        wait_until(lambda: not polled._thread.is_alive(), "the thread to end")
        with pytest.raises(RuntimeError, match="defect"):
            polled.get()
