"""From a model's answer to data: finding the JSON in it, and checking that it is a proposal.

Every problem is told in words for the model, because they are what a repair turn shows it.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from cambrian.agents.errors import ProposalError
from cambrian.search_spaces import Genotype, Space

_THINKING = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_TEXT_LIMIT = 600
"""Characters of a hypothesis that are kept: it comes back in later prompts."""


BOUNDS: dict[str, dict[str, Any]] = {
    "hypothesis": {"maxLength": 300},
    "expected_effect": {"maxLength": 200},
    "parents": {"maxItems": 3, "items": {"type": "string", "pattern": "^c-[0-9]{4,6}$"}},
    "edit": {"maxLength": 150},
}
"""What a server is asked to hold the model to, where it can."""


class ProposalAnswer(BaseModel):
    """What the model is asked for. The order of the fields is that of the answer: reasons before genes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hypothesis: str
    expected_effect: str
    parents: tuple[str, ...] = Field(default=(), max_length=16)
    edit: str
    genotype: dict[str, Any]

    @field_validator("hypothesis", "expected_effect", "edit")
    @classmethod
    def _short(cls, value: str) -> str:
        text = " ".join(value.split())
        return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 3] + "..."


def answer_schema(space: Space) -> dict[str, Any]:
    """JSON schema of the answer around the space's own, fit for strict structured output."""
    genotype = dict(space.schema())
    definitions = genotype.pop("$defs", None)
    properties: dict[str, Any] = {
        "hypothesis": {"type": "string", "description": "why this should be better, in one or two sentences"},
        "expected_effect": {"type": "string", "description": "what will be measured if that is right"},
        "parents": {
            "type": "array",
            "items": {"type": "string"},
            "description": "ids of the candidates this was derived from, such as c-0001; empty if from none",
        },
        "edit": {"type": "string", "description": "what was changed from the parents, in a few words"},
        "genotype": genotype,
    }
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }
    if definitions is not None:
        schema["$defs"] = definitions  # references are written from the root
    return schema


def parse_answer(text: str, space: Space) -> tuple[ProposalAnswer, Genotype]:
    """The answer as the model wrote it, and the canonical genotype it stands for.

    Raises:
        ProposalError: no JSON, other fields than asked for, or not a member of the space.
    """
    data = find_json(text)
    try:
        answer = ProposalAnswer.model_validate(data)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc']) or 'answer'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)[:5]
        ]
        raise ProposalError("; ".join(problems)) from None
    return answer, space.validate(answer.genotype)


def find_json(text: str) -> dict[str, Any]:
    """The JSON object in an answer: all of it, a fenced block, or the first one within prose.

    Raises:
        ProposalError: there is none, or it cannot be parsed; the message tells where.
    """
    text = _THINKING.sub("", text).strip()
    if not text:
        raise ProposalError("the answer is empty")
    fenced = [block.strip() for block in _FENCED.findall(text)]
    start = text.find("{")
    candidates = [text, *reversed(fenced)] if start <= 0 else [*reversed(fenced), text[start:]]
    problem = "it holds no JSON object"
    for candidate in candidates:
        if not candidate.startswith("{"):
            continue
        try:
            found = from_json(_first_object(candidate), allow_inf_nan=False)
        except ValueError as error:
            problem = str(error)
            continue
        if isinstance(found, dict):
            return found
    raise ProposalError(f"the answer is not one valid JSON object: {problem}")


def _first_object(text: str) -> str:
    """`text` up to the brace that closes its first one; all of it when none does."""
    depth, quoted, escaped = 0, False, False
    for place, char in enumerate(text):
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return text[: place + 1]
    return text
