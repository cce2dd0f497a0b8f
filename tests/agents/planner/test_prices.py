from __future__ import annotations

import pytest

from cambrian.agents.planner.endpoint import resolve_endpoint
from cambrian.agents.planner.exchange import Usage
from cambrian.agents.planner.prices import FREE, cost, cost_parts, paid_parts, price_of, price_table
from cambrian.agents.sections import LLMSection, PriceSection

GIVEN = PriceSection(input=3, output=9)


def test_names_stand_for_their_dated_variants() -> None:
    table = price_table()
    mini = table.price("gpt-4o-mini")
    assert mini is not None and mini == table.price("gpt-4o-mini-2024-07-18") != table.price("gpt-4o")
    early = table.price("gpt-4o-2024-05-13")
    assert early is not None and early.input == 5, "a date with a price of its own"
    for name in ("gpt-4o-mini-audio", "gpt-4", "gpt-5-pro", "gpt-4o-mini-2024", "", "my-gpt-4o"):
        assert table.price(name) is None, name


def test_the_table_is_plausible() -> None:
    table = price_table()
    assert len(table.as_of) == 7
    for name, price in table.models.items():
        assert 0 < price.input < price.output, name
        assert price.cached_input is None or price.cached_input < price.input, name


def test_cached_tokens_have_a_price_of_their_own() -> None:
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=500_000, cached_tokens=400_000)
    assert cost(usage, PriceSection(input=2, cached_input=0.5, output=8)) == pytest.approx(1.2 + 0.2 + 4)
    assert cost(usage, PriceSection(input=2, output=8)) == pytest.approx(2 + 4), "else the full one"
    assert cost(usage, FREE) == 0


@pytest.mark.parametrize(
    ("url", "model", "given", "price"),
    [
        (None, "gpt-4o-mini", None, "table"),
        (None, "gpt-4o-mini", GIVEN, GIVEN),
        (None, "gpt-99", None, None),
        ("http://127.0.0.1:8080/v1", "gpt-4o-mini", None, FREE),
        ("http://localhost:8080/v1", "any", None, FREE),
        ("http://gpu-box:8000/v1", "any", None, FREE),
        ("http://192.168.1.7/v1", "any", None, FREE),
        ("http://[::1]:80/v1", "any", None, FREE),
        ("http://127.0.0.1:8080/v1", "any", GIVEN, GIVEN),
        ("https://models.example.com/v1", "gpt-4o-mini", None, None),
        ("https://8.8.8.8/v1", "any", None, None),
        ("https://models.example.com/v1", "any", GIVEN, GIVEN),
    ],
)
def test_who_bills_what(url: str | None, model: str, given: PriceSection | None, price: object) -> None:
    endpoint = resolve_endpoint(LLMSection(model=model, base_url=url), {"OPENAI_API_KEY": "sk-1234567890"})
    expected = price_table().price(model) if price == "table" else price
    assert price_of(endpoint, given) == expected


def test_what_was_paid_is_split_by_the_price_that_it_was_paid_by() -> None:
    usage = Usage(prompt_tokens=1000, completion_tokens=100, cached_tokens=400)
    other = PriceSection(input=1, cached_input=0.5, output=4)
    llm = LLMSection.model_validate({"price": GIVEN, "models": [{"model": "b", "price": other}]})
    for model, price in (("a", GIVEN), ("b", other), ("b", GIVEN)):
        parts = paid_parts(cost(usage, price), usage, model, llm)
        assert parts == cost_parts(usage, price) and parts is not None and min(parts) > 0
    assert paid_parts(0.0, usage, "a", LLMSection()) == (0, 0), "at home"
    assert paid_parts(0.1234, usage, "a", llm) is None
