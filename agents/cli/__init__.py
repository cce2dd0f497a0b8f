"""The command line."""

from cambrian.agents.cli.app import main

__all__ = ["main"]
