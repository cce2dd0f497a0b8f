"""Errors of the sandbox layer."""

from cambrian.search_spaces import CambrianError


class InfrastructureError(CambrianError):
    """Something that runs depend on is down: the engine, the disk, a server. The candidate is not to blame.

    A run stops cleanly on it with its queue kept, and its exit code says so.
    """

    exit_code = 4


class EngineOptionError(InfrastructureError):
    """What was asked of an engine does not exist: an address that is none, an unknown context or runtime.

    The user can mend it, so the exit code is that of a `UserError`. Where an engine that cannot be had is
    made do without, this is no exception.
    """

    exit_code = 2
