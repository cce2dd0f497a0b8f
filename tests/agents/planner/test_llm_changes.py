"""The LLM arm asks a small model for changes of a parent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cambrian.agents.errors import ProposalError, UserError
from cambrian.agents.planner.exchange import ExchangeLog, Usage
from cambrian.agents.planner.questions import Questions
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Candidate, CandidateState
from tests.agents.planner.scripted import answer, scripted
from tests.agents.planner.world import TinySpace, candidate, config, context, convnet, evaluated


def by_changes(*changes: tuple[str, Any], **more: Any) -> str:
    """An answer that changes a parent."""
    return json.dumps(
        {
            "hypothesis": "wider holds more",
            "expectation": {"measure": "score", "change": "higher", "by_percent": 2},
            "parents": ["c-0001"],
            "changes": [{"gene": gene, "to": to} for gene, to in changes],
        }
        | more
    )


def tiny_run() -> list[Candidate]:
    """One network, so that no other can be the parent."""
    return [candidate(0, {"width": 8, "depth": 1}, score=0.5)]


async def test_a_small_model_changes_genes_of_a_parent(exchanges: ExchangeLog) -> None:
    arm, client = scripted(exchanges, by_changes(("width", 16), ("depth", 2)), answers="changes")
    (proposal,) = await arm.propose(context(TinySpace(), tiny_run(), index=2), 1)
    assert proposal.genotype == {"width": 16, "depth": 2} and proposal.parents == ("c-0001",)
    assert proposal.edit == "width 8 -> 16, depth 1 -> 2"
    (request,) = client.requests
    assert request.schema is not None
    assert list(request.schema["properties"]) == ["hypothesis", "expectation", "parents", "changes"]
    assert request.schema["properties"]["parents"]["items"]["enum"] == ["c-0001"]
    assert request.bounds["parents"]["minItems"] == 1 and request.bounds["changes"]["minItems"] == 1
    system, user = (message.content for message in request.messages)
    assert "hypothesis, expectation, parents, changes." in system
    assert "Changes that can be made in c-0001, the most promising first" in user
    assert "- width: 8 (0.5 in 1) -> 16 (not tried)\n" in user
    assert "whole genotype" not in user


async def test_changes_that_cannot_be_made_are_mended(exchanges: ExchangeLog) -> None:
    wrong = by_changes(("widht", 16))
    arm, client = scripted(exchanges, wrong, by_changes(("width", 16)), answers="changes")
    (proposal,) = await arm.propose(context(TinySpace(), tiny_run(), index=2), 1)
    assert proposal.genotype == {"width": 16, "depth": 1}
    assert "no gene 'widht' to change; near are width" in client.requests[1].messages[3].content
    assert client.requests[1].schema == client.requests[0].schema


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (by_changes(("width", 16), parents=[]), "parents: changes need a known network"),
        (by_changes(("width", 16), parents=["c-9999"]), "parents: changes need a known network"),
        (by_changes(("width", 8)), "stays what it is"),
        (by_changes(("width", 16), genotype={"width": 16, "depth": 1}), "exclude each other"),
        (by_changes(changes=None), "the field genotype is missing"),
    ],
)
async def test_what_is_wrong_with_changes_is_told(said: str, problem: str, exchanges: ExchangeLog) -> None:
    arm, _ = scripted(exchanges, said, answers="changes", repairs=0)
    with pytest.raises(ProposalError, match=problem):
        await arm.propose(context(TinySpace(), tiny_run(), index=2), 1)


async def test_a_whole_genotype_is_taken_where_changes_were_asked_for(exchanges: ExchangeLog) -> None:
    """Servers without structured output make nobody keep to a form."""
    arm, _ = scripted(exchanges, answer(TinySpace(), genotype={"width": 32, "depth": 3}), answers="changes")
    (proposal,) = await arm.propose(context(TinySpace(), tiny_run(), index=2), 1)
    assert proposal.genotype == {"width": 32, "depth": 3}


async def test_without_a_parent_a_whole_genotype_is_asked_for(exchanges: ExchangeLog) -> None:
    arm, client = scripted(exchanges, answer(TinySpace(), parents=[]), answers="changes")
    await arm.propose(context(TinySpace()), 1)
    assert "genotype" in (client.requests[0].schema or {})["properties"]
    assert "whole genotype" in client.requests[0].messages[1].content


async def test_a_parent_that_is_no_member_is_no_parent(exchanges: ExchangeLog) -> None:
    run = [*tiny_run(), candidate(1, {"widht": 8}, state=CandidateState.INVALID)]
    arm, _ = scripted(exchanges, by_changes(("width", 16), parents=["c-0002"]), answers="changes", repairs=0)
    with pytest.raises(ProposalError, match="exactly the genes width and depth"):
        await arm.propose(context(TinySpace(), run, index=2), 1)


async def test_a_repair_asks_for_the_same_form(exchanges: ExchangeLog) -> None:
    """However long the answer was that it is about."""
    space = convnet()
    run = evaluated(space, 30)
    templates = Templates.of(space)
    least = Questions(templates, context(space, run[:1]), by_changes=True).cuts.tokens
    forms = set()
    for limit in range(least // 2, least + 400, 50):
        try:
            asked = Questions(templates, context(space, run), by_changes=True, limit=limit)
        except UserError:
            continue
        first = asked.question()
        again = asked.repair(first, "x" * 9000, "y" * 9000)
        by_genes = "changes" in (first.schema or {})["properties"]
        assert by_genes == ("Changes that can be made in" in again.messages[1].content), limit
        assert by_genes != ("whole genotype" in again.messages[1].content), limit
        forms.add(by_genes)
    assert forms == {True, False}


def test_changes_and_a_batch_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="one at a time: set 'batch' to 1 or auto"):
        config(llm={"answers": "changes", "batch": 4})
    assert not config(llm={"local": "model.gguf", "batch": 4}).llm.by_changes


def test_changes_are_asked_for_one_at_a_time_and_of_local_models(exchanges: ExchangeLog) -> None:
    arm, _ = scripted(exchanges, answers="changes")
    arm._batching.note(Usage(prompt_tokens=9000, completion_tokens=90), 1, 1)
    assert arm.batch(8, 8) == 1
    assert config(llm={"local": "model.gguf"}).llm.by_changes
    assert not config(llm={"local": "model.gguf", "answers": "genotype"}).llm.by_changes
    assert not config(llm={}).llm.by_changes
