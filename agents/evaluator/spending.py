"""What models cost a run: by arm, by model and by role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from cambrian.agents.planner.exchange import Exchange, ExchangeLog, Spent
from cambrian.agents.population.model import LLM_ARM, Candidate
from cambrian.agents.wording import plural

_ROLES = ("propose", "repair")
"""What arms ask for; the analyst's questions are no arm's."""
ANALYST = "analyst"
"""In a table of arms, who asked what candidates taught."""
UNREADABLE = "unreadable"
"""In a table of arms or models, who asked what a damaged record told."""


class ModelUse(BaseModel):
    """What some questions to models cost.

    Attributes:
        calls: requests, retries included.
        tokens: of prompts and answers.
        money: US dollars; None where a price is not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls: int = Field(default=0, ge=0)
    tokens: int = Field(default=0, ge=0)
    money: float | None = Field(default=0.0, ge=0)

    @classmethod
    def of(cls, spent: Spent) -> ModelUse:
        """The same, for a report."""
        return cls(
            calls=spent.calls,
            tokens=spent.tokens,
            money=None if spent.money is None else round(spent.money, 9),
        )

    @property
    def cells(self) -> tuple[str, str, str]:
        """Calls, tokens and money for a table."""
        money = "unknown" if self.money is None else money_text(self.money)
        return str(self.calls), str(self.tokens), money

    def in_words(self) -> str:
        """Such as `1200 tokens in 3 calls for $0.012`; nothing is said of money where none was asked for."""
        said = f"{plural(self.tokens, 'token')} in {plural(self.calls, 'call')}"
        if self.money is None:
            return f"{said} at an unknown price"
        return f"{said} for {money_text(self.money)}" if self.money else said


@dataclass(frozen=True)
class Spending:
    """What a run asked of models.

    Attributes:
        total: all of it.
        arms: by arm, repairs and fruitless questions included; with `ANALYST` and `UNREADABLE` they add up
            to the total.
        models: by model; they add up to the total too.
        roles: by role: `propose`, `repair`, `analyse`.
    """

    total: ModelUse = field(default_factory=ModelUse)
    arms: dict[str, ModelUse] = field(default_factory=dict)
    models: dict[str, ModelUse] = field(default_factory=dict)
    roles: dict[str, ModelUse] = field(default_factory=dict)

    @classmethod
    def of(cls, exchanges: ExchangeLog, candidates: Sequence[Candidate]) -> Spending:
        """Sum up the record of a run, whose candidates say which arm asked."""
        return cls(
            total=ModelUse.of(exchanges.total()),
            arms={arm: ModelUse.of(spent) for arm, spent in _by_asker(exchanges, candidates).items()},
            models={name or UNREADABLE: ModelUse.of(spent) for name, spent in exchanges.by_model().items()},
            roles={name or UNREADABLE: ModelUse.of(spent) for name, spent in exchanges.by_role().items()},
        )


def money_text(money: float) -> str:
    """`$0.0123`, `$1.23`, `$120`: three digits, and never so few that something looks like nothing."""
    if not money:
        return "$0"
    if money >= 100:
        return f"${money:.0f}"
    return f"${money:.2f}" if money >= 1 else f"${money:.3g}"


def cost_text(exchanges: Sequence[Exchange], shared_by: int = 1) -> str:
    """`2,400 in (800 cached), 160 out: $0.0042, shared by 2 candidates`.

    Args:
        exchanges: counted together.
        shared_by: candidates that came of them.
    """
    asked = sum(x.usage.prompt_tokens for x in exchanges)
    cached = sum(x.usage.cached_tokens for x in exchanges)
    answered = sum(x.usage.completion_tokens for x in exchanges)
    said = f"{asked:,} in" + (f" ({cached:,} cached)" if cached else "") + f", {answered:,} out"
    if any(x.usage.estimated for x in exchanges):
        said += ", estimated"
    money = [x.money for x in exchanges if x.money is not None]
    if money:
        said += f": {money_text(sum(money))}"
    return said + (f", shared by {shared_by} candidates" if shared_by > 1 else "")


def _by_asker(exchanges: ExchangeLog, candidates: Sequence[Candidate]) -> dict[str, Spent]:
    """What each arm's questions cost, and those that are no arm's."""
    found = _by_arm(exchanges, candidates)
    for role, spent in exchanges.by_role().items():
        if role not in _ROLES:
            name = ANALYST if role else UNREADABLE
            found[name] = found.get(name, Spent()) + spent
    return found


def _by_arm(exchanges: ExchangeLog, candidates: Sequence[Candidate]) -> dict[str, Spent]:
    """What each arm's questions cost, found by the draw that they were asked for."""
    asking = Counter(c.proposal.arm for c in candidates if c.proposal.exchange is not None)
    roles = exchanges.by_role()
    total = sum((roles[role] for role in _ROLES if role in roles), Spent())
    if len(asking) <= 1:
        return {next(iter(asking), LLM_ARM): total} if total.exchanges else {}
    arm_of = {c.proposal.exchange: c.proposal.arm for c in candidates}
    records = [record for record in exchanges.all() if record.role in _ROLES]
    draws = {r.place.partition(".")[0]: arm_of[r.id] for r in records if r.place and r.id in arm_of}
    found: dict[str, Spent] = {}
    for record in records:
        arm = arm_of.get(record.id) or draws.get(record.place.partition(".")[0], LLM_ARM)
        found[arm] = found.get(arm, Spent()) + Spent.of(record)
    return found
