from __future__ import annotations

import pytest

from cambrian.agents.benching.searchers import (
    PEERS,
    default_weights,
    parse_arms,
    run_config,
    singles_of,
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
        ("mutation+llm", UserError, "'llm' asks a model"),
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
