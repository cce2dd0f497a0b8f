"""What a model costs: from the run file, else from the table beside this module, else unknown."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from cambrian.agents.planner.endpoint import Endpoint
from cambrian.agents.planner.exchange import Usage
from cambrian.agents.sections import LLMSection, PriceSection

TABLE = Path(__file__).with_name("prices.yaml")
FREE = PriceSection(input=0.0, cached_input=0.0, output=0.0)
_MILLION = 1e6
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


class PriceTable(BaseModel):
    """List prices by model, for OpenAI's own endpoint.

    Attributes:
        as_of: month of the list.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    as_of: str
    models: dict[str, PriceSection]

    def price(self, model: str) -> PriceSection | None:
        """The price of a model, or of the name without its date; None when neither is listed."""
        return self.models.get(model) or self.models.get(_DATED.sub("", model))


@cache
def price_table() -> PriceTable:
    """The table that comes with the package."""
    return PriceTable.model_validate(yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def price_of(endpoint: Endpoint, given: PriceSection | None = None) -> PriceSection | None:
    """What the model behind `endpoint` costs, None where that is not known.

    A price that the user gives goes first. The table holds for OpenAI's own endpoint only: the same name may
    cost something else elsewhere. A server on this machine or in a private network bills no tokens.

    Args:
        endpoint: where the model is, and its name.
        given: of the run file.
    """
    if given is not None:
        return given
    if endpoint.private:
        return FREE
    if endpoint.own or endpoint.model is None:
        return None
    return price_table().price(endpoint.model)


def cost(usage: Usage, price: PriceSection) -> float:
    """US dollars for `usage`; tokens from the server's cache go at the full price where no other is given."""
    return sum(cost_parts(usage, price))


def cost_parts(usage: Usage, price: PriceSection) -> tuple[float, float]:
    """US dollars for the prompts and for the answers of `usage`."""
    cached = price.input if price.cached_input is None else price.cached_input
    fresh = usage.prompt_tokens - usage.cached_tokens
    asked = fresh * price.input + usage.cached_tokens * cached
    return asked / _MILLION, usage.completion_tokens * price.output / _MILLION


def paid_parts(money: float, usage: Usage, model: str, llm: LLMSection) -> tuple[float, float] | None:
    """US dollars for the prompts and for the answers of what was paid for; None where that is not known.

    A record tells the sum alone. The price is the one, of those in the run file and the table, by which
    `usage` comes to it; none does where another one held.

    Args:
        money: for both.
        usage: tokens of both.
        model: that was asked.
        llm: the run file's section.
    """
    own = [section.price for section in llm.models if section.model == model]
    for price in (*own, llm.price, price_table().price(model), FREE):
        parts = None if price is None else cost_parts(usage, price)
        if parts is not None and math.isclose(sum(parts), money, rel_tol=1e-9, abs_tol=1e-15):
            return parts
    return None
