"""Exchanges with models as traces: complete, once, whatever happens to the server or to us."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from cambrian.agents.analyst.notes import NOTES_KEY, Note, Notebook
from cambrian.agents.errors import ModelUnavailable
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.exchange import ExchangeLog, Message, Usage
from cambrian.agents.planner.kept_prompts import keep_prompts
from cambrian.agents.planner.models import Models
from cambrian.agents.planner.prices import cost, price_table
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import CandidateState, Expectation, Lesson, Verdict
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.recorder.mlflow_recorder import MLflowRecorder
from cambrian.agents.recorder.trace_tracking import TraceTracking
from cambrian.search_spaces import Space, Task
from tests.agents.planner.server import answer, model_server
from tests.agents.planner.world import config as world_config
from tests.agents.recorder.making import BEGIN, enter, exchanged, made, run_record
from tests.agents.recorder.reading import Launch, artifacts, closed_port, only, parent, traces


def test_an_exchange_is_a_trace_with_all_that_is_known(launch: Launch, store: PopulationStore) -> None:
    exchanged(store, 1, response="![x](http://evil.example/x.png) I propose this.")
    exchanged(store, 2, response=None, error="HTTP 500 after 3 tries", calls=3, money=None, seconds=9.0)
    exchanged(store, 3, response=None, refusal="I would rather not", finish="stop")
    recorder = launch()
    assert recorder.flush(30)
    found = traces(recorder)
    first = found["x-0001"]
    assert (first.info.request_time, first.info.execution_duration) == ((BEGIN + 1) * 1000, 2500)
    assert first.info.token_usage == {
        "input_tokens": 1200,
        "output_tokens": 80,
        "total_tokens": 1280,
        "cache_read_input_tokens": 400,
    }
    assert first.info.cost["total_cost"] == 0.0021
    tags = first.info.tags
    assert (tags["cambrian.run"], tags["cambrian.place"]) == (store.run.run_id, "d1")
    assert (tags["cambrian.role"], tags["model"], tags["outcome"]) == ("propose", "test-model", "answered")
    assert "cambrian.candidate" not in tags
    assert first.info.trace_metadata["mlflow.sourceRun"] == parent(recorder).info.run_id
    (span,) = first.data.spans
    assert [m["role"] for m in span.inputs["messages"]] == ["system", "user"]
    answer = span.outputs["choices"][0]["message"]["content"]
    assert "I propose this." in answer and "![x]" not in answer
    assert (str(found["x-0002"].info.state), found["x-0002"].info.tags["calls"]) == ("ERROR", "3")
    assert found["x-0002"].info.cost is None
    assert found["x-0002"].data.spans[0].outputs == {"error": "HTTP 500 after 3 tries"}
    assert found["x-0003"].info.tags["outcome"] == "refused"
    assert "rather not" in found["x-0003"].info.response_preview


def test_what_still_waits_for_an_answer_is_shown_when_it_is_there(
    launch: Launch, store: PopulationStore
) -> None:
    recorder = launch()
    exchanged(store, 1, response=None, finish="", calls=0)
    assert recorder.flush(30)
    assert traces(recorder) == {}
    exchanged(store, 1)
    assert recorder.flush(30)
    assert traces(recorder)["x-0001"].info.tags["outcome"] == "answered"
    exchanged(store, 2, response=None, finish="", calls=0)
    recorder.close(30)
    assert traces(recorder)["x-0002"].info.tags["outcome"] == "no answer"


def test_a_trace_knows_its_candidates_and_their_pages_know_it(
    launch: Launch, store: PopulationStore, space: Space
) -> None:
    exchanged(store, 1, place="d1", response="no JSON")
    exchanged(store, 2, place="d1.2", role="repair")
    exchanged(store, 3, place="d2")
    exchanged(store, 4, place="c-0002", role="analyse", response="Width pays.")
    exchanged(store, 5, place="d3")
    lesson = Lesson(
        verdict=Verdict.BORNE_OUT,
        measured="accuracy rose by 5.6 %",
        text="Width [pays](x).",
        exchange="x-0004",
    )
    enter(store, made(space, 0, arm="random", score=0.9))
    for index in (1, 2):  # two candidates of one answer
        candidate = made(
            space,
            index,
            arm="llm",
            score=0.95,
            parents=("c-0001",),
            hypothesis="wider is better",
            expected_effect="accuracy higher by 1 %",
            exchange="x-0002",
            lesson=lesson if index == 1 else None,
        )
        expectation = Expectation(measure="score", change="higher", by_percent=1)
        proposal = candidate.proposal.model_copy(update={"expectation": expectation, "model": "test-model"})
        enter(store, candidate.model_copy(update={"proposal": proposal}))
    note = Note(id="n-01", claim="Width pays", scope="digits", supports=("c-0002",))
    store.set_meta(NOTES_KEY, Notebook(notes=(note,), made=1).model_dump_json())
    recorder = launch()
    recorder.close(60)
    found = traces(recorder)
    belongs = {x: trace.info.tags.get("cambrian.candidate") for x, trace in found.items()}
    both = "c-0002, c-0003"
    assert belongs == {"x-0001": both, "x-0002": both, "x-0003": None, "x-0004": "c-0002", "x-0005": None}
    assert len({found[x].info.trace_metadata["mlflow.trace.session"] for x in ("x-0001", "x-0002")}) == 1
    run = only(recorder, "c-0002")
    shown = recorder.client.search_traces(locations=[recorder.experiment_id], run_id=run.info.run_id)
    assert {trace.info.client_request_id for trace in shown} == {"x-0001", "x-0002", "x-0004"}
    note = run.data.tags["mlflow.note.content"]
    for exchange in ("x-0001", "x-0002", "x-0004"):
        assert f"traces/{found[exchange].info.trace_id}" in note
    assert "2,400 in (800 cached), 160 out: $0.0042, shared by 2 candidates" in note
    assert "| accuracy | 90.00 % | 95.00 % | +5.56 % |" in note
    assert "**Verdict: borne out**\n\naccuracy rose by 5.6 %" in note and "> Width \\[pays\\]\\(x\\)." in note
    assert (run.data.tags["verdict"], run.data.tags["model"]) == ("borne out", "test-model")
    assert {"prompt.md", "answer.json", "analysis-prompt.md", "analysis-answer.txt"} <= {*artifacts(run)}
    assert "traces/" not in only(recorder, "c-0001").data.tags["mlflow.note.content"]
    whole = parent(recorder)
    assert whole.data.metrics["llm_tokens"] == whole.data.metrics["arm.llm/llm_tokens"] + 1280 == 6400
    assert whole.data.metrics["llm_usd"] == pytest.approx(0.0105)
    columns, rows = json.loads(artifacts(whole)["lessons.json"].read_text()).values()
    assert columns[:2] == ["candidate", "verdict"]
    assert rows[0][:3] == [
        "c-0002",
        "borne out",
        "Width [pays](x).",
    ]
    told = whole.data.tags["mlflow.note.content"]
    assert (
        "Hypotheses about score and cost: 1 borne out" in told and "| Width pays | digits | [c-0002](" in told
    )


def test_a_lesson_that_comes_later_reaches_the_page(
    launch: Launch, store: PopulationStore, space: Space
) -> None:
    exchanged(store, 1)
    recorder = launch()
    candidate = made(space, 0, arm="llm", state=CandidateState.TRAINING, exchange="x-0001", score=None)
    enter(store, candidate)
    assert recorder.flush(30)
    assert traces(recorder)["x-0001"].info.tags["cambrian.candidate"] == "c-0001"
    exchanged(store, 2, place="c-0001", role="analyse", response=None, error="cut off")  # brings no lesson
    assert recorder.flush(30)
    shown = recorder.client.search_traces(
        locations=[recorder.experiment_id], run_id=only(recorder, "c-0001").info.run_id
    )
    assert {trace.info.client_request_id for trace in shown} == {"x-0001", "x-0002"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_death_between_writing_traces_and_noting_it_doubles_none(
    launch: Launch, store: PopulationStore, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 4):
        exchanged(store, number)
    enter(store, made(space, 0, arm="llm", exchange="x-0002"))
    note = store.set_meta

    def die(key: str, value: str) -> None:
        if key == "recorder.traces":
            raise SystemExit  # as a kill would, after the traces were written
        note(key, value)

    monkeypatch.setattr(store, "set_meta", die)
    dying = launch()
    assert not dying.flush(30), "the thread should have died"
    assert len(traces(dying)) == 3
    monkeypatch.undo()
    recorder = launch()
    assert recorder.flush(30)
    found = traces(recorder)
    assert {*found} == {"x-0001", "x-0002", "x-0003"}
    assert all(len(trace.data.spans) == 1 for trace in found.values())
    assert found["x-0002"].info.token_usage["total_tokens"] == 1280
    assert found["x-0002"].info.tags["cambrian.candidate"] == "c-0001"


def test_a_server_that_is_down_and_then_replaced_loses_no_trace(
    launch: Launch, store: PopulationStore, space: Space, template: Path, tmp_path: Path
) -> None:
    exchanged(store, 1)
    enter(store, made(space, 0, arm="llm", exchange="x-0001"))
    down = launch(f"http://127.0.0.1:{closed_port()}")
    assert not down.flush(2)
    down.close(0.5)
    recorder = launch()
    assert recorder.flush(30) and {*traces(recorder)} == {"x-0001"}
    recorder.close(0)
    exchanged(store, 2)
    other = tmp_path / "other.db"
    shutil.copy(template, other)
    again = launch(f"sqlite:///{other}")
    assert again.flush(30)
    found = traces(again)
    assert {*found} == {"x-0001", "x-0002"}
    assert found["x-0001"].info.tags["cambrian.candidate"] == "c-0001"
    assert found["x-0001"].info.trace_metadata["mlflow.sourceRun"] == parent(again).info.run_id


def test_a_trace_that_mlflow_refuses_does_not_hold_up_the_others(
    launch: Launch, store: PopulationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = TraceTracking._info

    def refuse(self: TraceTracking, entry: object, parent_run_id: str) -> object:
        if getattr(entry, "exchange", "") == "x-0001":
            raise ValueError("no such thing")
        return info(self, entry, parent_run_id)  # type: ignore[arg-type]

    monkeypatch.setattr(TraceTracking, "_info", refuse)
    for number in (1, 2):
        exchanged(store, number)
    (store.folder / "exchanges" / "x-0003.json").write_text("{")
    recorder = launch()
    assert recorder.flush(30)
    assert {*traces(recorder)} == {"x-0002"}


def test_each_version_of_a_template_is_registered_once_and_linked(
    launch: Launch, store: PopulationStore, space: Space, tmp_path: Path
) -> None:
    templates = Templates.of(space, users=False)
    keep_prompts(templates, store.folder)
    version = templates.version("propose.j2")
    exchanged(store, 1, templates={"propose.j2": version, "gone.j2": "0" * 12})
    enter(store, made(space, 0, arm="llm", exchange="x-0001"))
    first = launch()
    assert first.flush(30)
    first.close(0)
    folder = tmp_path / "mine"
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "propose.j2").write_text("Propose for {{ task }}.")
    mine = Templates(space.name, user_folder=folder)
    keep_prompts(mine, store.folder)
    exchanged(store, 2, templates={"propose.j2": mine.version("propose.j2")})
    recorder = launch()
    assert recorder.flush(30)
    name = f"cambrian-{space.name}-propose"
    found = {p.tags["cambrian.version"]: p for p in recorder.client.search_prompt_versions(name)}
    assert {*found} == {version, mine.version("propose.j2")} and len(found) == 2
    assert "Propose for {{ task }}." in found[mine.version("propose.j2")].template
    assert recorder.client.get_prompt_version_by_alias(name, version).version == found[version].version
    assert recorder.experiment_id in recorder.client.get_prompt(name).tags["_mlflow_experiment_ids"]
    uri = f"prompts:/{name}/{found[version].version}"
    linked = [{"name": name, "version": str(found[version].version)}]
    trace, run = traces(recorder)["x-0001"], only(recorder, "c-0001")
    asked = recorder.client.search_traces(
        locations=[recorder.experiment_id], filter_string=f"prompt = '{name}/{found[version].version}'"
    )
    assert [each.info.client_request_id for each in asked] == ["x-0001"]
    for tags in (trace.info.tags, run.data.tags):
        assert tags["prompts"] == uri and json.loads(tags["mlflow.linkedPrompts"]) == linked
    assert f"{name}?promptVersion={found[version].version}" in run.data.tags["mlflow.note.content"]
    assert uri in parent(recorder).data.tags["prompts"]


def test_what_prompts_and_answers_cost_is_told_where_the_price_is_known(
    launch: Launch, store: PopulationStore
) -> None:
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=100_000, cached_tokens=400_000)
    price = price_table().price("gpt-4o-mini")
    assert price is not None
    exchanged(store, 1, model="gpt-4o-mini", usage=usage, money=cost(usage, price))
    exchanged(store, 2, model="gpt-4o-mini", usage=usage, money=0.5)  # by a price that has changed since
    recorder = launch()
    assert recorder.flush(30)
    found = traces(recorder)
    told = found["x-0001"].info.cost
    assert told["input_cost"] == pytest.approx(0.6 * price.input + 0.4 * (price.cached_input or 0.0))
    assert told["output_cost"] == pytest.approx(0.1 * price.output)
    assert told["total_cost"] == pytest.approx(told["input_cost"] + told["output_cost"])
    assert found["x-0002"].data.spans[0].attributes["mlflow.llm.cost"] == {"total_cost": 0.5}


KEY = "planted-key-0123456789"
PASSWORD = "planted-password"


async def test_no_key_reaches_mlflow(
    space: Space, task: Task, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a server that gives keys away, through client, disk and recorder, to all that MLflow keeps."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with model_server() as server:
        url = server.url.replace("http://", f"http://ann:{PASSWORD}@")
        told = f"your key is {KEY}, at {url}, and sk-proj-{'a1B2' * 8} is another one"
        server.says(
            answer(json.dumps({"hypothesis": told})),
            answer(None, refusal=told),
            lambda handler: handler.send(401, {"error": {"message": told}}),
        )
        llm = {
            "model": "test-model",
            "base_url": url,
            "retries": 0,
            "models": [{"model": "b", "base_url": url}],
        }
        settings = world_config(llm=llm, budget={"evaluations": 9})
        store = PopulationStore(
            tmp_path / "runs" / "keys", create=run_record(config=settings.model_dump(mode="json"))
        )
        models = Models(settings, ExchangeLog(store.folder))
        ask = ModelRequest(role="propose", messages=(Message(role="user", content="Propose."),))
        first = await models.ask(ask)
        for place in ("d2", "d3"):
            with contextlib.suppress(ModelUnavailable):
                await models.ask(replace(ask, place=place, messages=(Message(role="user", content=place),)))
        await models.close()
    said = json.loads(first.response or "")["hypothesis"]
    enter(store, made(space, 0, arm="llm", exchange=first.id, hypothesis=said))
    recorder = MLflowRecorder(store, space, task, f"sqlite:///{database}", tmp_path / "artifacts")
    recorder.start()
    recorder.close(60)
    assert len(traces(recorder)) == 3
    assert "your key is [key]" in only(recorder, "c-0001").data.tags["mlflow.note.content"].replace("\\", "")
    store.close()
    with sqlite3.connect(database) as connection:
        kept = "\n".join(connection.iterdump())
    for path in (tmp_path / "artifacts").rglob("*.*"):
        kept += path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    assert "your key is" in kept
    assert not [secret for secret in (KEY, PASSWORD, "sk-proj") if secret in kept]
