"""How many proposals to ask for in one call: what a proposal costs alone and among others, as measured.

A prompt is paid once, however many proposals are asked for. So several are cheaper where the prompt is what
costs: not where the server has most of it in its cache, nor where the model's further proposals are no good.
"""

from __future__ import annotations

from dataclasses import dataclass

from cambrian.agents.planner.exchange import Usage
from cambrian.agents.sections import LLMSection, PriceSection

USUAL = PriceSection(input=1.0, output=4.0)
"""Where nothing is paid or the price is not known: an answer's token takes a model longer than a prompt's."""
WORTH = 0.75
"""A batch is asked for when a proposal in it costs at most this share of what one alone does."""
ROOM = 0.7
"""Share of the longest answer that a batch may be expected to fill: one that is cut is lost."""


@dataclass
class _Sums:
    """Over all answers of one kind."""

    answers: int = 0
    prompt: float = 0.0
    asked: int = 0
    usable: int = 0
    answer_tokens: int = 0

    @property
    def yields(self) -> float:
        """Usable proposals by asked ones, taken for good until they are known."""
        return (self.usable + 2.0) / (self.asked + 2.0)


class Batching:
    """Learns what proposals cost.

    Args:
        llm: `batch` and `max_tokens` are used.
    """

    def __init__(self, llm: LLMSection) -> None:
        self._llm = llm
        self._alone, self._together = _Sums(), _Sums()
        self._output = USUAL.output

    def note(self, usage: Usage, asked: int, usable: int, price: PriceSection | None = None) -> None:
        """Take in an answer.

        Args:
            usage: of the exchange.
            asked: proposals that were asked for.
            usable: proposals that could be used.
            price: of the model; None is unknown.
        """
        if price is None or not price.input + price.output:
            price = USUAL
        sums = self._alone if asked == 1 else self._together
        cached = price.input if price.cached_input is None else price.cached_input
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
        sums.answers += 1
        sums.prompt += fresh * price.input + usage.cached_tokens * cached
        sums.asked += asked
        sums.usable += usable
        sums.answer_tokens += usage.completion_tokens
        self._output = price.output

    def best(self, most: int) -> int:
        """How many proposals to ask for at once, at most `most`; 1 while nothing is measured."""
        if self._llm.batch != "auto":
            return max(1, min(most, self._llm.batch))
        answers, asked = (
            self._alone.answers + self._together.answers,
            self._alone.asked + self._together.asked,
        )
        if not answers or most < 2:
            return 1
        prompt = (self._alone.prompt + self._together.prompt) / answers
        tokens = (self._alone.answer_tokens + self._together.answer_tokens) / asked
        n = min(most, int(ROOM * self._llm.max_tokens / max(tokens, 1.0)))
        if n < 2:
            return 1
        answer = tokens * self._output
        alone = (prompt + answer) / self._alone.yields
        together = (prompt / n + answer) / self._together.yields
        return n if together <= WORTH * alone else 1
