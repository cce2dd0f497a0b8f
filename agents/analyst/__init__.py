"""The analyst: verdicts on hypotheses, lessons of candidates, and the notes of a run."""

from cambrian.agents.analyst.analyst import Analyst
from cambrian.agents.analyst.notes import Note

__all__ = ["Analyst", "Note"]
