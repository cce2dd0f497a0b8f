"""Errors of the sandbox layer."""

from cambrian.search_spaces import CambrianError


class InfrastructureError(CambrianError):
    """Something that runs depend on is down: the engine, the disk, a server. The candidate is not to blame.

    A run stops cleanly on it with its queue kept, and its exit code says so.
    """

    exit_code = 4
