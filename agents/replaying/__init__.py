"""Replays: a recorded run executed again without a key, a sandbox or a clock."""

from cambrian.agents.replaying.answers import ReplayMiss
from cambrian.agents.replaying.launch import replay
from cambrian.agents.replaying.replay import ReplayDiverged, ReplayReport

__all__ = ["ReplayDiverged", "ReplayMiss", "ReplayReport", "replay"]
