# SPDX-License-Identifier: Apache-2.0
"""Samples, one after the other: of whoever answers, or of a record."""

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from agent.errors import AgentError
from agent.inquiry import Asked
from agent.record.lines import RecordError, Recording, Writer
from agent.snapshot.sample import Sample
from agent.views.top.feed import Missed, Seen, Told
from agent.views.traffic import TREND

_INTERVALS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_SPEEDS = (1, 2, 4, 8, 16, 32, 64)
_FIRST_SECONDS = 0.5  # to the second sample: without it there is no rate
_LATE_SECONDS = 2.0  # beyond the interval: then a sample is old
_GAP_SECONDS = 10.0  # a record that pauses for longer is not waited for
_SEEK_STEPS = 100  # from one end of a record to the other
_STOP_SECONDS = 0.5


class Live:
    """What is there now, and into a record with it."""

    def __init__(self, asked: Asked, record: Writer | None, path: str = "") -> None:
        self.who = asked.who
        self._now = asked.now
        self._record = record
        self._path = path
        self.notice = f"recording to {path}" if record else ""
        self.problem = ""  # why nothing is recorded any more

    def sample(self) -> Sample:
        """Ask now; AgentError where nobody answers as an agent does."""
        try:
            sample = Sample.of(self._now())
        except ValueError as err:
            raise AgentError(
                f"{self.who} did not answer as an agent does: {err}",
                "use the bigtcp-agent of the same version",
            ) from err
        except OSError as err:
            raise AgentError(
                f"{self.who} cannot be read: {err.strerror or err}", "try it again"
            ) from err
        if self._record:
            try:
                self._record.add(sample.picture)
            except OSError as err:
                self._record = None
                self.problem = (
                    f"recording stopped: {(err.strerror or str(err)).lower()}"
                )
                self.notice = self.problem
        return sample

    def require_record(self) -> None:
        """RecordError where samples that were to be recorded could not be written."""
        if self.problem:
            raise RecordError(
                f"{self._path} has not all samples: {self.problem}",
                "those before can be replayed; free space there, or choose another "
                "folder",
            )

    def samples(
        self, interval: float, missed: Callable[[AgentError], None] | None
    ) -> Iterator[Sample]:
        """One after the other, `interval` seconds apart, for ever. `missed` is told
        why there is none; without it that is the end, and raised.
        """
        due = time.monotonic()
        while True:
            try:
                sample = self.sample()
            except AgentError as err:
                if not missed:
                    raise
                missed(err)
            else:
                yield sample
            due = max(due + interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))


class _Thread(ABC):
    """What both feeds share: a thread that waits, and can be told meanwhile.

    See agent.views.top.feed for what each method is.
    """

    def __init__(self) -> None:
        self._told = threading.Condition()
        self._stopped = False
        self._paused = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def paused(self) -> bool:
        """See there."""
        return self._paused

    def start(self, tell: Callable[[Told], object]) -> None:
        """See there."""
        self._tell = tell
        self._thread.start()

    def stop(self) -> None:
        """An agent that is hung is not waited for."""
        with self._steered():
            self._stopped = True
        if self._thread.ident is not None:  # else it was never started
            self._thread.join(_STOP_SECONDS)

    def pause(self) -> None:
        """See there."""
        with self._steered():
            self._paused = not self._paused

    @contextlib.contextmanager
    def _steered(self) -> Iterator[None]:
        with self._told:
            yield
            self._told.notify_all()

    def _say(self, told: Told) -> None:
        # The screen may be gone by now.
        with contextlib.suppress(RuntimeError):
            if not self._stopped:
                self._tell(told)

    @abstractmethod
    def _run(self) -> None:
        """The thread."""


class LiveFeed(_Thread):
    """Asks every `interval` seconds; goes on where nobody answers for a while."""

    replay = False

    def __init__(self, live: Live, interval: float) -> None:
        super().__init__()
        self.who = live.who
        self._live = live
        self._interval = interval

    @property
    def pace(self) -> str:
        """See there."""
        return f"every {self._interval:g} s"

    @property
    def notice(self) -> str:
        """See there."""
        return self._live.notice

    @property
    def patience(self) -> float:
        """See there."""
        return self._interval + _LATE_SECONDS

    def faster(self, step: int) -> None:
        """See there."""
        with self._steered():
            if step > 0:
                less = [each for each in _INTERVALS if each < self._interval]
                self._interval = less[-1] if less else self._interval
            else:
                more = [each for each in _INTERVALS if each > self._interval]
                self._interval = more[0] if more else self._interval

    def seek(self, step: int | None, *, end: bool = False) -> None:
        """Nothing: there is only now."""

    def _run(self) -> None:
        asked = 0
        while not self._stopped:
            begun = time.monotonic()
            if not self._paused:
                try:
                    self._say(Seen((self._live.sample(),)))
                    asked += 1
                except AgentError as err:
                    self._say(Missed(err))
            with self._told:
                while not self._stopped:
                    wait = self._interval if asked != 1 else _FIRST_SECONDS
                    left = begun + min(wait, self._interval) - time.monotonic()
                    if self._paused:
                        self._told.wait()
                        begun = time.monotonic() - self._interval
                    elif left <= 0:
                        break
                    else:
                        self._told.wait(left)


class ReplayFeed(_Thread):
    """A record, as fast as it was recorded or faster."""

    replay = True

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.who = f"the record {recording.path}"
        self.notice = ""
        self.patience = float("inf")
        self._recording = recording
        self._speed = 1
        self._at = 0
        self._jumped = True

    @property
    def pace(self) -> str:
        """See there."""
        end = ", the end" if self._at == len(self._recording) - 1 else ""
        return f"x{self._speed}, {self._at + 1} of {len(self._recording)}{end}"

    def faster(self, step: int) -> None:
        """See there."""
        at = _SPEEDS.index(self._speed) + step
        with self._steered():
            self._speed = _SPEEDS[max(0, min(at, len(_SPEEDS) - 1))]

    def seek(self, step: int | None, *, end: bool = False) -> None:
        """See there; a hundred steps are the whole record."""
        last = len(self._recording) - 1
        with self._steered():
            if step is None:
                self._at = last if end else 0
            else:
                by = step * max(1, len(self._recording) // _SEEK_STEPS)
                self._at = max(0, min(last, self._at + by))
            self._jumped = True

    def _run(self) -> None:
        try:
            while not self._stopped:
                with self._told:
                    at, jumped = self._at, self._jumped
                    self._jumped = False
                first = max(0, at - TREND // 2) if jumped else at
                samples = tuple(map(self._recording.sample, range(first, at + 1)))
                self._say(Seen(samples, jumped))
                self._wait(at, samples[-1])
        except RecordError as err:
            self._say(Missed(err, fatal=True))

    def _wait(self, at: int, sample: Sample) -> None:
        """Until the next one is due, or somebody seeks."""
        last = at == len(self._recording) - 1
        gap = 0.0 if last else self._recording.sample(at + 1).taken - sample.taken
        begun = time.monotonic()
        with self._told:
            while not self._stopped and not self._jumped:
                seconds = min(max(gap, 0.0), _GAP_SECONDS) / self._speed
                left = begun + seconds - time.monotonic()
                if last or self._paused:
                    self._told.wait()
                    begun = time.monotonic()
                elif left > 0:
                    self._told.wait(left)
                else:
                    self._at += 1
                    return
