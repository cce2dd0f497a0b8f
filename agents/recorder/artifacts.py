"""The files of a candidate as MLflow keeps them: drawing, source, genotype, the words of the model."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from cambrian.agents.population.model import Candidate, CandidateState
from cambrian.agents.wording import clean, unpictured
from cambrian.search_spaces import Signature, Space

logger = logging.getLogger(__name__)

_MAX_TEXT = 200_000
_PLAIN = frozenset(
    {CandidateState.INVALID, CandidateState.DUPLICATE, CandidateState.SCREENED, CandidateState.INFEASIBLE}
)
"""States that nobody looks into twice: their genotype and the model's words are enough."""


def write_candidate_files(
    candidate: Candidate, space: Space, signature: Signature, run_folder: Path, folder: Path
) -> bool:
    """Write the candidate's artifacts into `folder`; `run_folder` is where `exchanges` and `jobs` lie.

    Returns:
        Whether `architecture.svg` is among them.
    """
    (folder / "genotype.json").write_text(json.dumps(candidate.genotype, indent=1), encoding="utf-8")
    asked = {"": candidate.proposal.exchange}
    asked["analysis-"] = candidate.lesson.exchange if candidate.lesson is not None else None
    for prefix, exchange in asked.items():
        if exchange is not None:
            _write_exchange(run_folder / "exchanges" / f"{exchange}.json", folder, prefix)
    drawn = False
    if candidate.state not in _PLAIN:
        drawn = _write(folder / "architecture.svg", lambda: space.draw(candidate.genotype, signature))
        _write(folder / "source.py", lambda: space.source(candidate.genotype, signature))
    if candidate.state is CandidateState.FAILED:
        pattern = f"jobs/{candidate.id}-*/log.txt"
        logs = [*sorted(run_folder.glob(f"devices/*/{pattern}")), *sorted(run_folder.glob(pattern))]
        if logs:
            _write(folder / "log.txt", lambda: clean(logs[-1].read_text("utf-8", "replace"), _MAX_TEXT))
    return drawn


def _write(path: Path, make: Callable[[], str]) -> bool:
    try:
        text = make()
    except Exception as error:  # a third party's space: its picture is not worth a delivery
        logger.debug("no %s: %s", path.name, error)
        return False
    path.write_text(text, encoding="utf-8")
    return True


def _write_exchange(record: Path, folder: Path, prefix: str) -> None:
    """The recorded model call as two texts. Read with leniency: it is shown, not acted upon."""
    try:
        data = json.loads(record.read_text(encoding="utf-8"))
        messages = data["messages"]
        prompt = "\n\n".join(f"## {message['role']}\n\n{message['content']}" for message in messages)
        answer = data.get("response") or data.get("refusal") or data.get("error") or ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.debug("exchange %s cannot be shown: %s", record.name, error)
        return
    (folder / f"{prefix}prompt.md").write_text(unpictured(clean(prompt, _MAX_TEXT)), encoding="utf-8")
    try:
        told = json.dumps(json.loads(answer), indent=1, ensure_ascii=False)
    except (ValueError, RecursionError):
        (folder / f"{prefix}answer.txt").write_text(clean(str(answer), _MAX_TEXT), encoding="utf-8")
    else:
        (folder / f"{prefix}answer.json").write_text(clean(told, _MAX_TEXT), encoding="utf-8")
