"""A run of whose proposals half are copies in other words: none is paid for, and nothing new is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cambrian.agents.cli.looking import show_command
from cambrian.agents.planner import ARMS
from cambrian.agents.population import CandidateState
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Watch, start
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import SPACES, Signature
from tests.support import rewording

DIGITS = Signature(input_shape=(1, 8, 8), n_outputs=10)
EVALUATIONS = 20


async def test_half_of_the_proposals_are_copies_in_other_words(
    config: Callable[..., RunConfig],
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(ARMS._loaded, "half", rewording.Half)
    report = await start(
        config(
            slots=1,
            arms={"half": 1.0},
            budget={"evaluations": EVALUATIONS},
            predictor={"enabled": False},
            noise={"repeats": 0},
            champions={"top": 0},
        ),
        Workspace(runs),
        Watch(say=lambda _: None),
    )
    store = Workspace(runs).open("last")
    candidates, by_id = store.candidates(), {c.id: c for c in store.candidates()}
    proposed = [c for c in candidates if c.proposal.arm == "half"]
    copies = [c for c in proposed if c.proposal.edit == "copy"]
    assert len(copies) > 0.35 * len(proposed)
    # paid for: by normal forms, that know of no hash
    forms = [rewording.convnet_form(c.genotype) for c in candidates if c.score is not None]
    assert len(forms) == EVALUATIONS
    assert len(forms) - len(set(forms)) <= 0.01 * EVALUATIONS
    assert all(c.state is CandidateState.DUPLICATE for c in copies)
    # refused: only what computes the same with the same weights
    space = SPACES.create("convnet")
    duplicates = [c for c in candidates if c.state is CandidateState.DUPLICATE]
    for duplicate in duplicates:
        original = by_id[duplicate.duplicate_of or ""]
        assert rewording.compute_alike(space, duplicate.genotype, original.genotype, DIGITS)
        assert duplicate.nearest is not None and duplicate.nearest.id == original.id
        assert duplicate.nearest.similarity == 1
        if duplicate.genotype == original.genotype:
            assert duplicate.reason == f"computes the same as {original.id}; written the same"
        else:
            assert duplicate.reason.endswith(f"; written differently: {duplicate.nearest.difference}")
    # told
    saved = report.ledger.identity
    assert saved.proposals == len(candidates) and sum(saved.duplicates.values()) == len(duplicates)
    assert saved.evaluations == len(duplicates)
    assert f"{len(duplicates)} duplicate ({saved.duplicates['half']} of {len(proposed)} by half" in "".join(
        report.lines()
    )
    others = [c for c in candidates if c.state is CandidateState.EVALUATED][1:]
    assert all(c.nearest is not None and c.nearest.similarity < 1 for c in others)
    assert all(by_id[c.nearest.id].index < c.index for c in others if c.nearest)
    assert all(len(c.nearest.difference) <= 100 for c in others if c.nearest)
    assert sum(c.nearest is not None and c.nearest.agreement is not None for c in others) > 10
    store.close()
    show_command(f"{report.run_id}/{others[0].id}", False, runs)
    assert f"{others[0].nearest.id}, similarity 0." in capsys.readouterr().out  # type: ignore[union-attr]
