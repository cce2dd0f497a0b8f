"""How many tokens an answer cost, by the server's word where that can be believed.

What is believed of the `usage` in a body:

- whole numbers from 0, also when written as text or with `.0`;
- `total` larger than its parts: the rest was thinking that the server leaves out of the answer's tokens; it
  is counted with them and the sum marked as estimated. A smaller total changes nothing but the mark;
- more tokens of the cache than the prompt has are as many as it has.

Not believed, and estimated at four characters a token instead: numbers that are missing, negative or no
numbers, no tokens for a text that is there, and more tokens than bytes passed over the wire, the greatest
length that was asked for and a generous allowance for what a server adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cambrian.agents.planner.exchange import Usage

ALLOWANCE = 100_000
"""Tokens that a server may add to a request by itself."""
_NAMES = (
    ("prompt_tokens", "completion_tokens", "prompt_tokens_details"),
    ("input_tokens", "output_tokens", "input_tokens_details"),
)


@dataclass(frozen=True)
class Sent:
    """What is known of a request, to judge its usage by.

    Attributes:
        chars: of all messages.
        size: bytes of the whole request.
        answer_tokens: the greatest length of the answer that was asked for.
    """

    chars: int
    size: int
    answer_tokens: int


def estimated_tokens(text: str) -> int:
    """Tokens of `text` at four characters each: rather too few than too many for JSON."""
    return _tokens(len(text))


def usage_in(raw: object, sent: Sent, text: str, size: int) -> Usage:
    """The usage that a body holds, or an estimate.

    Args:
        raw: what stands under `usage`.
        sent: the request.
        text: the answer.
        size: bytes of the body.
    """
    estimate = Usage(
        prompt_tokens=_tokens(sent.chars), completion_tokens=estimated_tokens(text), estimated=True
    )
    if not isinstance(raw, Mapping):
        return estimate
    prompt_name, answer_name, details_name = next((n for n in _NAMES if n[0] in raw), _NAMES[0])
    prompt, answer = _count(raw.get(prompt_name)), _count(raw.get(answer_name))
    most_prompt = sent.size + ALLOWANCE
    most_answer = max(sent.answer_tokens, size) + ALLOWANCE
    if prompt is None or answer is None or prompt > most_prompt or answer > most_answer:
        return estimate
    if (prompt == 0 and sent.chars) or (answer == 0 and text):
        return estimate
    details = raw.get(details_name)
    cached = (_count(details.get("cached_tokens")) if isinstance(details, Mapping) else None) or 0
    total = _count(raw.get("total_tokens"))
    estimated = False
    if total is not None and total != prompt + answer:
        estimated = True
        if prompt + answer < total <= prompt + most_answer:
            answer = total - prompt
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=answer,
        cached_tokens=min(cached, prompt),
        estimated=estimated,
    )


def _tokens(chars: int) -> int:
    return (chars + 3) // 4


def _count(value: object) -> int | None:
    """A whole number from 0, or None."""
    if isinstance(value, str) and len(value) <= 20 and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 2**53 and value == int(value) else None
