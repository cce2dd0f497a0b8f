"""`cambrian prompts ...`: a user's way from our templates to templates of their own, over two runs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.cli.app import app
from cambrian.agents.errors import UserError
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.planner.kept_prompts import templates_of_run
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Candidate
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Watch, start
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import SPACES
from tests.agents.planner.server import Handler, ModelServer, answer, model_server
from tests.support.command import assert_help_is_light

MakeConfig = Callable[..., RunConfig]
EDITED = '{% extends "shipped/convnet/propose.j2" %}\n{% block advice %}\nUse wide stems.\n{% endblock %}\n'


def cli(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    """What the command prints; it must end with `code`."""
    capsys.readouterr()
    ended = 0
    try:
        app(["prompts", *map(str, arguments)], standalone_mode=False)
    except SystemExit as end:
        ended = int(end.code or 0)
    assert ended == code
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> Any:
    return json.loads(cli(capsys, *arguments, "--json", code=code))


def put(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of prompts, where commands are given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAMBRIAN_PROMPTS", raising=False)
    return tmp_path / "prompts"


def proposing(seed: int) -> Callable[[Handler], None]:
    """Every third first answer is no proposal; the repair of it is."""
    space = SPACES.create("convnet")

    def respond(handler: Handler) -> None:
        turns = handler.seen.turns
        number = len(handler.world.seen)
        if "lesson" in json.dumps(handler.seen.schema or {})[:300]:
            said = {
                "lesson": "Wider was better on this task.",
                "notes": {"supports": [], "contradicts": [], "new": []},
            }
        elif number % 3 == 0 and len(turns) == 2:
            said = {"genotype": "none"}
        else:
            said = {
                "hypothesis": "wider is better",
                "expectation": {"measure": "score", "change": "higher", "by_percent": 1},
                "parents": ["c-0001"],
                "edit": "wider",
                "genotype": space.sample(random.Random(f"{seed}/{number}")),
            }
        answer(json.dumps(said))(handler)

    return respond


async def one_run(config: MakeConfig, runs: Path, server: ModelServer, seed: int) -> Path:
    """The folder of a finished run with a model."""
    server.says(proposing(seed))
    made = config(
        arms={"random": 0.3, "llm": 0.7},
        budget={"evaluations": 10},
        seed=seed,
        llm={"model": "test-model", "base_url": server.url, "retries": 0, "repairs": 1, "batch": 1,
             "price": {"input": 1, "output": 2}},
    )  # fmt: skip
    await start(made, Workspace(runs), Watch(say=lambda _: None))
    return Workspace(runs).folder("last")


def by_model(folder: Path) -> list[Candidate]:
    store = Workspace(folder.parent).open(folder.name)
    found = [c for c in store.candidates() if c.proposal.exchange is not None]
    store.close()
    return found


@pytest.mark.parametrize("command", ["list", "report"])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    assert_help_is_light("prompts", command, cwd=tmp_path)


async def test_the_whole_way(
    config: MakeConfig, runs: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with model_server() as server:
        first = await one_run(config, runs, server, 1)
        put(mine, "convnet/propose.j2", EDITED)
        assert "convnet: sound" in cli(capsys, "check", "convnet")
        changes = as_json(capsys, "diff", "convnet")["templates"]
        assert [row["template"] for row in changes] == ["propose.j2"]
        assert "+Use wide stems." in changes[0]["sources"] and "-- Resolution is" in changes[0]["rendered"]
        second = await one_run(config, runs, server, 2)
        asked = [[turn["content"] for turn in seen.turns] for seen in server.seen]
    assert "Use wide stems." not in asked[0][1]
    assert any("Use wide stems." in turn for turns in asked for turn in turns)

    versions = [templates_of_run(folder).version("propose.j2") for folder in (first, second)]
    assert versions[0] != versions[1] == Templates("convnet").version("propose.j2")
    between = as_json(capsys, "diff", first.name, second.name, "--runs", runs)["templates"]
    assert [row["versions"] for row in between] == [versions]
    assert cli(capsys, "diff", second.name, "--runs", runs).strip().endswith("the same")

    report = as_json(capsys, "report", "--template", "propose.j2", "--runs", runs)
    rows = {row["version"]: row for row in report["rows"]}
    assert list(rows) == versions
    for folder, version, origin in zip((first, second), versions, ("shipped", "yours"), strict=True):
        row, log = rows[version], ExchangeLog(folder)
        exchanges = [log.get(f"x-{i:04d}") for i in range(1, len(log) + 1)]
        questions = [each for each in exchanges if each.role == "propose"]
        turns = [each for each in exchanges if each.role != "analyse"]
        made, used = by_model(folder), {c.proposal.exchange for c in by_model(folder)}
        assert (row["origin"], row["runs"], row["questions"]) == (origin, [folder.name], len(questions))
        assert row["valid_first"]["k"] >= len(used & {each.id for each in questions})
        assert row["valid"]["k"] >= len(used) and row["valid"]["k"] > row["valid_first"]["k"]
        assert row["duplicates"]["n"] == len(made)
        assert row["tokens"] == sum(each.usage.tokens for each in turns)
        assert row["money"] == pytest.approx(sum(each.money or 0.0 for each in turns))
        assert row["improved"]["n"] == row["evaluated"] == sum(c.score is not None for c in made)
        low, share, high = (row["improved"][name] for name in ("low", "share", "high"))
        assert 0 <= low <= share <= high <= 1
    told = {each["rate"]: each for each in report["comparisons"]}
    assert told["valid"]["older"] == versions[0] and told["valid"]["low"] < told["valid"]["high"]
    text = cli(capsys, "report", "--runs", runs)
    assert all(version in text for version in versions) and "against" in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80 and "\u2026" not in text
    told = {(row["template"], row["version"]) for row in as_json(capsys, "report", "--runs", runs)["rows"]}
    heads = [line.split() for line in lines if ".j2 " in line and "against" not in line]
    assert {(name, version) for name, *found in heads for version in found} == told
    look_at_questions(second, asked, mine, capsys)


def look_at_questions(
    folder: Path, asked: list[list[str]], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was sent, would be sent next, and would be sent in its place by templates of today."""
    runs = folder.parent
    candidate = by_model(folder)[-1]
    shown = as_json(capsys, "render", folder.name, "--candidate", candidate.id, "--runs", runs)
    assert [message["content"] for message in shown["messages"]] in asked
    assert shown["exchange"]["id"] == candidate.proposal.exchange
    assert shown["tokens"] == sum(message["tokens"] for message in shown["messages"])
    short = as_json(capsys, "render", f"{folder.name}/{candidate.id}", "--runs", runs)
    assert short == shown

    coming = as_json(capsys, "render", folder.name, "--runs", runs)
    text = coming["messages"][1]["content"]
    assert candidate.id in text and f"would ask next (draw {_draws(folder)})" in coming["about"]
    assert coming["schema"]["required"] and coming["cut"] == ""
    part = as_json(capsys, "render", folder.name, "--template", "system.j2", "--runs", runs)
    assert [message["template"] for message in part["messages"]] == ["system.j2"]

    put(mine, "base/system.j2", "You are short.")
    again = as_json(capsys, "render", folder.name, "--candidate", candidate.id, "--again", "--runs", runs)
    assert again["messages"][0]["content"] == "You are short.\n"
    told = [section["title"] for section in again["messages"][1]["sections"]]
    assert "What is known" in told and candidate.id not in again["messages"][1]["content"]
    lesson = as_json(
        capsys, "render", folder.name, "--candidate", candidate.id, "--role", "analyse", "--runs", runs
    )
    assert lesson["role"] == "analyse" and candidate.id in lesson["messages"][0]["content"]
    look_at_lessons(folder, capsys)


def look_at_lessons(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the analyst asked is what it would ask again; what it never asked can be seen too."""
    runs = folder.parent
    store = Workspace(runs).open(folder.name)
    candidates = store.candidates()
    store.close()

    def render(cid: str, *more: str) -> Any:
        told = ("--candidate", cid, "--role", "analyse", "--runs", str(runs))
        return as_json(capsys, "render", folder.name, *told, *more)

    asked = next(c for c in candidates if c.lesson is not None and c.lesson.exchange is not None)
    unasked = next(c for c in candidates if c.proposal.arm == "random" and c.score is not None)
    sent, again = render(asked.id), render(asked.id, "--again")
    assert sent["exchange"] is not None and again["exchange"] is None
    assert f"# Network {asked.id}" in again["messages"][0]["content"]
    coming = render(unasked.id)
    assert coming["exchange"] is None and coming["schema"]["required"] == ["lesson", "notes"]
    assert f"# Network {unasked.id}" in coming["messages"][0]["content"]
    assert f"would ask about {folder.name}/{unasked.id}" in coming["about"]
    assert any("lessons" in remark for remark in coming["remarks"])


def _draws(folder: Path) -> int:
    store = Workspace(folder.parent).open(folder.name)
    draws = int(store.get_meta("draws") or 0)
    store.close()
    return draws


def test_a_candidate_that_no_model_proposed_is_said_to_be_one(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="convnet is no run"):
        cli(capsys, "render", "convnet", "--candidate", "c-0001")
    with pytest.raises(UserError, match=r"no part of this question is from 'propse\.j2'") as caught:
        cli(capsys, "render", "convnet", "--template", "propse.j2")
    assert "did you mean propose.j2" in caught.value.hint
    with pytest.raises(UserError, match="no run, space or file 'convnt'") as caught:
        cli(capsys, "render", "convnt")
    assert "convnet" in caught.value.hint


@pytest.mark.parametrize("role", ["propose", "repair", "analyse"])
def test_a_question_of_each_role_about_a_made_up_population(
    mine: Path, capsys: pytest.CaptureFixture[str], role: str
) -> None:
    shown = as_json(capsys, "render", "convnet", "--role", role)
    assert shown["role"] == role and shown["schema"]["type"] == "object"
    assert shown["templates"].keys() >= {message["template"] for message in shown["messages"]} - {""}
    problem = "an invented problem" in shown["messages"][-1]["content"]
    assert problem == (role == "repair")


def test_the_list_says_where_templates_lie_and_what_they_override(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(mine, "convnet/propose.j2", EDITED)
    rows = {row["name"]: row for row in as_json(capsys, "list", "convnet")["templates"]}
    own = rows["propose.j2"]
    assert own["origin"] == "yours" and own["overrides"] == ["advice"] and own["roles"] == ["propose"]
    assert own["extends"] == ["shipped/convnet/propose.j2", "base/propose.j2"] and own["tokens"] > 500
    assert rows["system.j2"]["origin"] == "shipped" and rows["_candidates.j2"]["roles"] == []
    assert own["version"] == Templates("convnet").version("propose.j2")
    assert rows["analyse.j2"]["tokens"] > 100
    text = cli(capsys, "list", "convnet")
    assert "_candidates.j2: a part" in text and "yours: convnet/propose.j2" in text
    assert max(len(line) for line in text.splitlines() if "ours lie in" not in line) <= 80


BASE = '{% extends "base/propose.j2" %}\n'


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {
                "convnet/propose.j2": BASE + "{% block advise %}x{% endblock %}",
                "base/repair.j2": "Try again.",
                "base/schema.j2": "Answer in JSON.",
                "base/analyse.j2": "{{ candidate.id }} {{ verdct }}",
                "base/system.j2": "one\n```\n{{ task.name }}",
            },
            {
                "convnet/propose.j2 line 2: block 'advise' is in no template that it extends": "advice",
                "base/repair.j2 leaves out 'problem'": "{{ problem }}",
                "base/schema.j2 leaves out 'schema'": "",
                "base/analyse.j2 line 1 uses 'verdct'": "verdict",
                "base/system.j2: a block of data is not closed": "",
            },
        ),
        (
            {
                "convnet/propose.j2": "a\n{% if limits %}{{ latncy }}{% endif %}{{ bst }}",
                "base/system.j2": "{% if %}",
            },
            {
                "convnet/propose.j2 line 2 uses 'latncy'": "",
                "convnet/propose.j2 line 2 uses 'bst'": "best",
                "base/system.j2 line 1 cannot be parsed": "",
            },
        ),
        (
            {
                "convnet/propose.j2": "{{ task.nam }} {{ bests }}\n{{ number2 }}{{ ''.__class__ }}"
                "{% if comments %}{{ noise.bound }}{% endif %}",
            },
            {
                "convnet/propose.j2 line 1 uses 'nam' of 'task', which is not defined": "name",
                "convnet/propose.j2 line 1 uses 'bests', which is not defined": "best",
                "convnet/propose.j2 line 2 uses 'number2', which is not defined": "number",
                "convnet/propose.j2 line 2 does what templates may not: access to attribute '__class__'": "",
            },
        ),
        (
            {"base/propose.j2": "{% for c in best %}{{ c.scoer }}{% endfor %}"},
            {"base/propose.j2 line 1 uses 'scoer' of an entry of 'best'": "score"},
        ),
    ],
)
def test_slips_are_errors(
    mine: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], expected: dict[str, str]
) -> None:
    for name, text in files.items():
        put(mine, name, text)
    found = as_json(capsys, "check", "convnet", code=2)["reports"][0]["findings"]
    errors = {finding["message"]: finding["hint"] for finding in found if finding["level"] == "error"}
    assert len(errors) == len(expected), errors
    for message, hint in expected.items():
        assert any(message in said and hint in errors[said] for said in errors), (message, errors)


def test_what_is_odd_is_warned_of(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = "{% for s in setbacks %}{{ s.reason }}\n{% endfor %}"
    put(mine, "base/propos.j2", "x")
    put(mine, "convnett/propose.j2", "x")
    put(mine, "convnet/propose.j2", f"{BASE}lost words\n{{% block advice %}}{reasons}{{% endblock %}}")
    put(mine, "base/propose.j2", "One of {{ space.description }}{% block advice %}{% endblock %}")
    found = as_json(capsys, "check", "convnet")["reports"][0]["findings"]
    told = {finding["message"]: finding["hint"] for finding in found}
    for message, hint in {
        "no prompt is made from base/propos.j2": "propose.j2",
        "is named like no space": "convnet",
        "leaves out which candidates to change": "",
        "leaves out the hard limits": "",
        "line 2: text outside of all blocks is never shown": "in a block",
        "shows words of candidates, models or reviewers outside a fenced block": "```",
    }.items():
        assert any(message in said and hint in told[said] for said in told), (message, told)
    (near,) = (told[said] for said in told if "base/propos.j2" in said)
    assert near.count("propose.j2") == 1, "each name once"


def test_a_lessons_question_is_compared_as_it_is_rendered(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(mine, "base/analyse.j2", "What does {{ candidate.id }} teach?")
    (row,) = as_json(capsys, "diff", "convnet")["templates"]
    assert row["template"] == "analyse.j2" and "+What does c-0003 teach?" in row["rendered"]


def test_errors_are_counted_in_english(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, said in (("{{ bst }}", "1 error\n"), ("{{ bst }}{{ tusk }}", "2 errors\n")):
        put(mine, "base/system.j2", source)
        assert f"convnet: {said}" in cli(capsys, "check", "convnet", code=2)


def test_a_prompt_without_room_is_told_with_its_longest_section(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"name": "small", "space": "convnet", "task": "digits", "budget": {"evaluations": 5}}
    put(mine.parent, "small.yaml", json.dumps(run | {"llm": {"prompt_tokens": 2300}}))
    found = as_json(capsys, "check", "small.yaml")["reports"][0]
    assert found["limit"] == 2300 and all(measured["sent"] <= 2300 for measured in found["measured"])
    assert any("cut to llm.prompt_tokens = 2,300" in f["message"] for f in found["findings"])
    put(mine.parent, "small.yaml", json.dumps(run | {"llm": {"prompt_tokens": 600}}))
    found = as_json(capsys, "check", "small.yaml", code=2)["reports"][0]
    assert "llm.prompt_tokens is 600, but a question needs" in found["findings"][0]["message"]


def test_all_shipped_prompts_are_sound(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "check")
    assert found["broken"] == {}
    names = [report["space"] for report in found["reports"]]
    assert names == SPACES.names()
    for report in found["reports"]:
        told = [f["message"] for f in report["findings"] if "cut to llm.prompt_tokens" not in f["message"]]
        assert told == [], f"{report['space']}: {told}"
