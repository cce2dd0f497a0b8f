"""The command line. Heavy imports live inside the commands: `--help` must be instant."""

from cambrian.agents.cli.app import main

__all__ = ["main"]
