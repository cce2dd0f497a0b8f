"""Whole runs with a model behind the LLM arm: a loopback server that answers well, badly, or not at all."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cambrian.agents.errors import UserError
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.population import CandidateState
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.review import FolderDesk
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Stopped, Watch, resume, start
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import SPACES
from tests.agents.planner.server import Handler, ModelServer, answer, model_server
from tests.support.interrupt import interrupts_when_waiting

MakeConfig = Callable[..., RunConfig]
ARMS = {"random": 0.3, "mutation": 0.2, "llm": 0.5}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


def llm(server: ModelServer) -> dict[str, object]:
    return {"model": "test-model", "base_url": server.url, "retries": 0, "repairs": 1}


def proposing(seed: int) -> Callable[[Handler], None]:
    """Answers with a member of the space that differs from request to request."""
    space = SPACES.create("convnet")

    def respond(handler: Handler) -> None:
        genotype = space.sample(random.Random(f"{seed}/{len(handler.world.seen)}"))
        body = {
            "hypothesis": "wider is better",
            "expected_effect": "accuracy up by 1 %",
            "parents": ["c-0001", "c-9999"],
            "edit": "wider",
            "genotype": genotype,
        }
        answer(json.dumps(body))(handler)

    return respond


def left_by(runs: Path) -> PopulationStore:
    return Workspace(runs).open("last")


async def test_the_model_proposes_and_all_of_it_is_kept(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    server.says(proposing(0))
    report = await start(
        config(arms=ARMS, llm=llm(server), budget={"evaluations": 16}),
        Workspace(runs),
        Watch(say=lambda _: None),
    )
    store = left_by(runs)
    proposed = [c for c in store.candidates() if c.proposal.arm == "llm"]
    assert len([c for c in proposed if c.score is not None]) >= 4
    for candidate in proposed:
        assert candidate.proposal.hypothesis == "wider is better"
        assert candidate.proposal.parents == ("c-0001",), "a parent that is not there is dropped"
        exchange = ExchangeLog(store.folder).get(candidate.proposal.exchange or "")
        assert exchange.response is not None and "wider is better" in exchange.response
    assert report.ledger.tokens == server.tokens, "the ledger equals the server's own count"
    assert report.ledger.calls == len(server.seen)
    rows = {row.arm: row.asked for row in report.arms if row.asked is not None}
    assert rows.keys() == {"llm", "analyst"} and rows["analyst"].calls > 0
    assert sum(row.tokens for row in rows.values()) == report.ledger.tokens, "and the rows add up to it"
    assert sum(row.calls for row in rows.values()) == report.ledger.calls


async def test_a_rejections_reason_is_in_the_next_prompt(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    server.says(proposing(1))
    made = config(
        arms={"llm": 1.0},
        warmup=1,
        llm=llm(server),
        review="gate",
        budget={"evaluations": 4},
        analyst={"lessons": "off"},
    )
    with pytest.raises(Stopped):
        await start(made, Workspace(runs), Watch(say=interrupts_when_waiting([])))
    store = left_by(runs)
    parked = [c.id for c in store.candidates() if c.state is CandidateState.PARKED]
    desk = FolderDesk(store.folder / "review")
    desk.decide(parked[0], "reject", "no more than two stages, please", by="ada")
    for cid in parked[1:3]:
        desk.decide(cid, "approve", "more of this kind", by="ada")
    asked = len(server.seen)
    asked_again = interrupts_when_waiting([], ready=lambda: len(server.seen) > asked)
    with pytest.raises(Stopped):
        await resume("last", Workspace(runs), Watch(say=asked_again))
    prompts = ["\n".join(turn["content"] for turn in seen.turns) for seen in server.seen[asked:]]
    assert any("no more than two stages, please" in prompt for prompt in prompts)


@pytest.mark.parametrize(
    "bad",
    [
        answer("this is not JSON"),
        answer('{"genotype": {"stem": "huge"}}'),
        answer(None, refusal="I will not"),
        lambda handler: handler.send(500, {"error": {"message": "boom"}}),
        lambda handler: handler.send(401, {"error": {"message": "wrong key"}}),
        lambda handler: handler.send(200, b"<html>not an API</html>", kind="text/html"),
    ],
    ids=["no-json", "no-member", "refusal", "down", "key-refused", "no-api"],
)
async def test_rubbish_costs_the_run_nothing(
    config: MakeConfig, runs: Path, server: ModelServer, bad: Callable[[Handler], None]
) -> None:
    server.says(bad)
    lines: list[str] = []
    report = await start(config(arms=ARMS, llm=llm(server)), Workspace(runs), Watch(say=lines.append))
    assert report.ledger.evaluations == 12
    assert len([line for line in lines if line.startswith("arm llm")]) == 1, "one line names the cause"
    assert report.ledger.tokens == server.tokens
    assert not [c for c in left_by(runs).candidates() if c.proposal.arm == "llm" and c.score is not None]


async def test_an_endpoint_that_is_down_is_said_once_and_passed_over(config: MakeConfig, runs: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
    lines: list[str] = []
    made = config(arms=ARMS, llm={"model": "m", "base_url": url, "retries": 0})
    report = await start(made, Workspace(runs), Watch(say=lines.append))
    assert report.ledger.evaluations == 12
    assert len([line for line in lines if "arm llm pauses" in line]) == 1


async def test_a_token_budget_retires_the_arm_and_the_run_goes_on(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    server.says(proposing(2))
    lines: list[str] = []
    off = {"lessons": "off"}
    made = config(arms=ARMS, llm=llm(server), budget={"evaluations": 12, "calls": 2}, analyst=off)
    report = await start(made, Workspace(runs), Watch(say=lines.append))
    assert report.ledger.evaluations == 12 and report.ledger.calls == len(server.seen) == 2
    assert len([line for line in lines if "arm llm is out" in line]) == 1


async def test_a_slip_in_a_users_prompt_is_told_before_the_run(
    config: MakeConfig, runs: Path, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prompts" / "convnet"
    folder.mkdir(parents=True)
    (folder / "propose.j2").write_text("Propose for {{ tsk }}, please.")
    monkeypatch.setenv("CAMBRIAN_PROMPTS", str(tmp_path / "prompts"))
    with pytest.raises(UserError) as caught:
        await start(config(arms=ARMS, llm=llm(server)), Workspace(runs), Watch(say=lambda _: None))
    assert "tsk" in str(caught.value) and "task" in str(caught.value) and "propose.j2" in str(caught.value)
    assert not runs.exists()
