"""The roots of Cambrian's error tree; the whole tree is drawn in `cambrian.agents.errors`.

They live in the lowest package because every other package raises them.
"""

from __future__ import annotations


class CambrianError(Exception):
    """Base of every error that Cambrian raises on purpose.

    Attributes:
        message: what went wrong, in one line that names the field, file or thing.
        hint: what to do next, in one line; may be empty.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UserError(CambrianError):
    """The user can mend it: a wrong name, a missing file, a value out of range."""

    exit_code = 2


class UnknownNameError(UserError):
    """A name that no registered thing bears; the hint lists the near ones."""


class MissingDataError(UserError):
    """A task's data are not where they should be; the hint says how to get them."""


class ProposalError(CambrianError):
    """A proposal is not a member of its space; its author (arm or model) may try again.

    The message is written for that author: it names the gene, the value and what is allowed.
    """
