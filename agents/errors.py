"""The whole error tree, and the exit codes of the command line.

    CambrianError                 exit 1
    |- UserError                  exit 2   the user can mend it
    |  |- UnknownNameError                 no such space, task, arm, run, candidate
    |  |- MissingDataError                 a task's files are not there
    |  |- RunFileError                     the run file does not validate
    |  '- RunBusyError                     another process holds the run
    |- LimitReached               exit 3   a budget is spent
    |- InfrastructureError        exit 4   engine, disk or server down; the queue is kept, `resume` goes on
    |  |- EngineOptionError      exit 2   no such runtime, context or kind of address of an engine
    |  '- ModelUnavailable                 the model endpoint is down, refuses, or answers rubbish
    '- ProposalError              (never reaches the user) the model or arm may try again

0 is success, 130 an interrupt (Ctrl-C), 143 a SIGTERM; both of the last keep the queue. A candidate that
fails is no error of ours: it is an `Outcome` with a state and a reason.
"""

from __future__ import annotations

from cambrian.sandbox import InfrastructureError
from cambrian.search_spaces import (
    CambrianError,
    MissingDataError,
    ProposalError,
    UnknownNameError,
    UserError,
)


class RunFileError(UserError):
    """The run file does not validate; the message names the file, the field and what is allowed."""


class RunBusyError(UserError):
    """Another process is working on this run."""


class LimitReached(CambrianError):
    """A budget of one kind is spent.

    Attributes:
        kind: `evaluations`, `wall_s`, `tokens`, `calls` or `money`; of one role's own limit, `analyse.calls`
            and the like.
        limit: what was allowed.
        used: what is spent.
        needed: about what the next step would take, where that is more than what is left.
    """

    exit_code = 3

    def __init__(self, kind: str, limit: float, used: float, needed: float = 0.0) -> None:
        unit, sign = f" {kind}", ""
        if kind == "money" or kind.endswith(".money"):
            unit, sign = f" for {kind.removesuffix('money').rstrip('.') or 'models'}", "$"
        if needed and used < limit:
            left = f"{sign}{limit - used:.4g} left, and the next question needs about {sign}{needed:.4g}"
            super().__init__(f"budget of {sign}{limit:g}{unit}: {left}")
        else:
            super().__init__(f"budget of {sign}{limit:g}{unit} is spent ({sign}{used:g} used)")
        self.kind, self.limit, self.used, self.needed = kind, limit, used, needed


class ModelUnavailable(InfrastructureError):
    """The model endpoint is down, refuses the key, or answers nothing that can be used.

    Attributes:
        retry_after_s: seconds after which it may be asked again, by the server's word or because it is left
            alone until then; None when nobody said.
        permanent: True when trying again is of no use before the user changes something.
    """

    def __init__(
        self, message: str, *, hint: str = "", retry_after_s: float | None = None, permanent: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s, self.permanent = retry_after_s, permanent


__all__ = [
    "CambrianError",
    "InfrastructureError",
    "LimitReached",
    "MissingDataError",
    "ModelUnavailable",
    "ProposalError",
    "RunBusyError",
    "RunFileError",
    "UnknownNameError",
    "UserError",
]
