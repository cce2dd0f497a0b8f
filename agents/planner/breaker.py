"""A circuit breaker for each model: one that gives nothing usable is left alone, and tried now and then.

It opens after some failures in a row, or at once where trying again is of no use before something changes
(key refused, quota gone, model unknown) or where the server asks for a longer pause. While it is open nobody
asks. When its pause is over one question is let through as a probe; if that fails too, the next pause is
twice as long, up to an hour.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cambrian.agents.errors import ModelUnavailable

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 3600.0
Say = Callable[[str], None]


class Breaker:
    """The state of one model, changed by what became of the questions to it.

    People hear one line when the model falls out and one when it is back; failed probes in between are logged
    only. Answers that arrive but hold nothing usable (`unusable`) count apart from endpoints that fail: they
    are known only after the answer was read, so a probe that is answered is on trial until `usable` says so.

    Args:
        name: of the model, for messages.
        failures: in a row, after which it opens.
        probe_s: the first pause, in seconds.
        say: told of each change.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        failures: int,
        probe_s: float,
        say: Say = lambda _line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._most, self._first_pause_s = name, failures, probe_s
        self._say, self._clock = say, clock
        self._down = self._unusable = 0
        self._pause_s = probe_s
        self._until: float | None = None
        self._probing = False
        self._on_trial = False
        self._said = False
        self._why = ""

    @property
    def ready(self) -> bool:
        """Whether a question would be let through now."""
        return self._until is None or (self._clock() >= self._until and not self._probing)

    def enter(self) -> bool:
        """Let one question through; what became of it must be told to this breaker.

        Returns:
            Whether the question is the probe of an open breaker.

        Raises:
            ModelUnavailable: it is open; `retry_after_s` says until when.
        """
        if self._until is None:
            return False
        if not self.ready:
            left = max(0.0, self._until - self._clock())
            until = "it is being tried" if self._probing else f"it is tried again in {left:.0f} s"
            raise ModelUnavailable(
                f"model {self._name} is left alone, {until}: {self._why}", retry_after_s=max(1.0, left)
            )
        log.info("model %s is tried again", self._name)
        self._probing = True
        return True

    def answered(self, probe: bool) -> None:
        """A question was answered; what the answer is worth is told by `usable` or `unusable`."""
        self._down = 0
        if not probe:
            return
        self._probing, self._until = False, None
        if not self._on_trial:
            self._recovered()

    def failed(self, error: ModelUnavailable, probe: bool) -> None:
        """A question was not answered, all its retries included."""
        self._down += 1
        if probe:
            self._probing = False
        elif self._until is not None:
            return  # asked before it opened
        asked_for = error.retry_after_s or 0.0
        if probe or error.permanent or asked_for > 0 or self._down >= self._most:
            self._open(error.message, asked_for)

    def dropped(self, probe: bool) -> None:
        """A question was given up for reasons that say nothing of the model."""
        if probe:
            self._probing = False

    def usable(self) -> None:
        """An answer could be used."""
        self._unusable = 0
        if self._on_trial and self._until is None:
            self._on_trial = False
            self._recovered()

    def unusable(self, why: str) -> None:
        """An answer could not be used, all repairs included."""
        self._unusable += 1
        if self._until is None and (self._on_trial or self._unusable >= self._most):
            times = f" {self._unusable} times in a row" if self._unusable > 1 else ""
            self._on_trial = True
            self._open(f"model {self._name} gave nothing usable{times}: {why}", 0.0)

    def status(self) -> str:
        """One phrase: `ready`, or why it is left alone and until when."""
        if self._until is None:
            return "ready" if not self._on_trial else f"on trial: {self._why}"
        left = self._until - self._clock()
        return f"left alone for {left:.0f} s: {self._why}" if left > 0 else f"to be tried again: {self._why}"

    def _open(self, why: str, at_least_s: float) -> None:
        pause_s = min(max(self._pause_s, at_least_s), LONGEST_PAUSE_S)
        self._until, self._why = self._clock() + pause_s, why
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        line = f"{why}; it is left alone for {pause_s:.0f} s"
        if self._said:
            log.warning("%s", line)
        else:
            self._said = True
            self._say(line)

    def _recovered(self) -> None:
        self._down, self._pause_s, self._why = 0, self._first_pause_s, ""
        if self._said:
            self._said = False
            self._say(f"model {self._name} answers again")
