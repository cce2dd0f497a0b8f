from __future__ import annotations

import pytest

from cambrian.agents.benching.asked import check_model
from cambrian.agents.benching.searchers import (
    PEERS,
    default_weights,
    parse_arms,
    run_config,
    singles_of,
    twin_of,
)
from cambrian.agents.errors import UnknownNameError, UserError
from cambrian.agents.runfile import RunConfig


def test_names_and_portfolios() -> None:
    found = parse_arms("default, mutation,mutation+crossover:0.3,local-search,mutation")
    names = ["default", "mutation", "mutation+crossover:0.3", "local-search"]
    assert [each.name for each in found] == names
    assert found[1].weights == {"mutation": 1.0} and found[1].single
    assert found[2].weights == {"mutation": 1.0, "crossover": 0.3} and not found[2].single
    assert found[3].weights == {} and not found[3].single


def test_the_default_is_that_of_run_files_without_a_model() -> None:
    weights = default_weights()
    arms = RunConfig.model_validate({"name": "a", "space": "mlp", "task": "wine", "budget": 1}).arms
    assert weights == {name: arm.weight for name, arm in arms.items() if name != "llm" and arm.weight > 0}
    found = parse_arms(None)
    assert [each.name for each in found] == ["default", *weights, *PEERS]
    assert [each.name for each in singles_of(found, found[0])] == list(weights)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("mutaton", UnknownNameError, "unknown arm 'mutaton'.*did you mean mutation"),
        ("locals-search", UnknownNameError, "unknown arm .locals-search.*did you mean local-search"),
        ("mutation+llm", UserError, "'llm' asks a model.*say which"),
        ("mutation:x", UserError, "'x' is no weight"),
        ("mutation:0", UserError, "'mutation' has no weight"),
        ("mutation+mutation", UserError, "'mutation' stands there twice"),
        (" , ", UserError, "names no arm"),
    ],
)
def test_what_is_no_searcher(text: str, error: type[UserError], says: str) -> None:
    with pytest.raises(error, match="--arms") as caught:
        parse_arms(text)
    import re

    assert re.search(says, str(caught.value))


def test_single_controls_have_no_predictor() -> None:
    random, mutation = parse_arms("random,mutation")
    assert not run_config(random, 0, 10, warmup=None, predictor=True).predictor.enabled
    assert run_config(mutation, 0, 10, warmup=3, predictor=True).predictor.enabled
    config = run_config(mutation, 7, 10, warmup=3, predictor=False)
    assert not config.predictor.enabled and (config.seed, config.warmup) == (7, 3)
    assert config.budget.evaluations == 10


def test_a_model_makes_two_of_one_portfolio() -> None:
    found = parse_arms(None, ["rubbish"])
    assert [(each.name, each.model) for each in found] == [("default", ""), ("default+llm", "rubbish")]
    assert found[1].weights.items() > found[0].weights.items() and "llm" in found[1].weights
    assert twin_of(found, found[1]) == found[0] and twin_of(found, found[0]) is None
    several = parse_arms("mutation+llm:0.5,llm", ["rubbish", "other"])
    assert [each.name for each in several] == [
        "mutation", "mutation+llm:0.5 (rubbish)", "mutation+llm:0.5 (other)", "llm (rubbish)", "llm (other)"
    ]  # fmt: skip
    assert twin_of(several, several[1]) == several[0] and twin_of(several, several[3]) is None
    with pytest.raises(UserError, match="--llm: no searcher has the arm 'llm'"):
        parse_arms("mutation", ["rubbish"])


def test_the_model_is_in_the_run_file() -> None:
    _, rubbish, local, named = parse_arms("mutation+llm", ["rubbish", "local", "some-model"])
    configs = [run_config(each, 0, 10, warmup=None, predictor=True).llm for each in (rubbish, local, named)]
    assert [(each.model, each.local) for each in configs] == [
        (None, None), (None, "default"), ("some-model", None)
    ]  # fmt: skip


def test_who_cannot_be_asked_is_told_before_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CAMBRIAN_MODEL"):
        monkeypatch.delenv(name, raising=False)
    check_model("rubbish")
    with pytest.raises(UserError, match="--llm: 'some-model' cannot be asked"):
        check_model("some-model")
