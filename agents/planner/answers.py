"""From a model's answer to data: finding the JSON in it, and checking that it is a proposal, or several.

Every problem is told in words for the model, because they are what a repair turn shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from cambrian.agents.errors import ProposalError
from cambrian.agents.evaluator.difference import difference
from cambrian.agents.planner.changes import Change, Start, changed, changes_schema
from cambrian.agents.planner.evolution import fingerprint
from cambrian.agents.population.model import Expectation, Measure
from cambrian.search_spaces import Genotype, Space

MOST = 16
"""Proposals that one answer may hold."""
_THINKING = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_TEXT_LIMIT = 600
"""Characters of a hypothesis that are kept: it comes back in later prompts."""
_CHANGES = ("higher", "lower", "same")


class ProposalAnswer(BaseModel):
    """What the model is asked for. The order of the fields is that of the answer: reasons before genes.

    Attributes:
        expected_effect: in words, as models were once asked for it; instead of `expectation`.
        edit: what was changed from the parents; of an answer by changes, these tell it.
        genotype: all of it, or else `changes`.
        changes: of the first parent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hypothesis: str
    expectation: Expectation | None = None
    expected_effect: str = ""
    parents: tuple[str, ...] = Field(default=(), max_length=16)
    edit: str = ""
    genotype: dict[str, Any] | None = None
    changes: tuple[Change, ...] | None = Field(default=None, max_length=64)

    @field_validator("hypothesis", "expected_effect", "edit")
    @classmethod
    def _short(cls, value: str) -> str:
        text = " ".join(value.split())
        return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 3] + "..."

    @field_validator("expectation", mode="before")
    @classmethod
    def _the_sign_is_told_once(cls, value: object) -> object:
        """Models write `lower by -3 %`."""
        if isinstance(value, dict) and value.get("change") in {"lower", "same"}:
            size = value.get("by_percent")
            if isinstance(size, int | float) and size < 0:
                return value | {"by_percent": -size}
        return value

    @model_validator(mode="after")
    def _something_is_expected(self) -> ProposalAnswer:
        if self.expectation is None and not self.expected_effect:
            raise ValueError("the field expectation is missing")
        return self

    @model_validator(mode="after")
    def _there_is_one_network(self) -> ProposalAnswer:
        if self.changes is not None and self.genotype is not None:
            raise ValueError("genotype and changes exclude each other")
        if self.changes is None and self.genotype is None:
            raise ValueError("the field genotype is missing")
        if self.genotype is not None and "edit" not in self.model_fields_set:
            raise ValueError("the field edit is missing")
        return self


def answer_schema(space: Space, n: int = 1, start: Start | None = None) -> dict[str, Any]:
    """JSON schema of the answer around the space's own, fit for strict structured output.

    Args:
        space: whose genotypes are proposed.
        n: proposals that are asked for; of more than one the answer is `{"proposals": [...]}`.
        start: what one proposal is to be given as changes of; None asks for whole genotypes.
    """
    genotype = dict(space.schema())
    definitions = genotype.pop("$defs", None)
    expectation = _object(
        {
            "measure": {"type": "string", "enum": list(get_args(Measure))},
            "change": {"type": "string", "enum": list(_CHANGES)},
            "by_percent": {
                "type": "number",
                "description": "least change in per cent of the first parent's value, 0 or more; "
                "of `same`, the most",
            },
        },
        "what will be measured, against the first parent, if the hypothesis is right",
    )
    reasons = {
        "hypothesis": {
            "type": "string",
            "description": "why this should be better, in one or two sentences",
        },
        "expectation": expectation,
    }
    if start is not None:
        parents = {"type": "array", "items": {"type": "string", "enum": list(start.ids)}}
        changes = changes_schema(start.genes) | {
            "description": f"what is changed in {start.ids[0]}, each gene with its new value"
        }
        schema = _object(reasons | {"parents": parents, "changes": changes})
    else:
        parents = {
            "type": "array",
            "items": {"type": "string"},
            "description": "ids of the candidates this was derived from, such as c-0001; empty if from none",
        }
        edit = {"type": "string", "description": "what was changed from the parents, in a few words"}
        schema = _object(reasons | {"parents": parents, "edit": edit, "genotype": genotype})
    if n > 1:
        proposals = {"type": "array", "items": schema, "description": f"{n} proposals, no two alike"}
        schema = _object({"proposals": proposals})
    if definitions is not None:
        schema["$defs"] = definitions  # references are written from the root
    return schema


def answer_bounds(space: Space, n: int = 1, start: Start | None = None) -> dict[str, dict[str, Any]]:
    """What a server is asked to hold the model to, where it can: see `ModelRequest.bounds`."""
    one = answer_schema(space)["properties"]
    size = one["expectation"]["properties"]["by_percent"] | {"minimum": 0, "maximum": 1000}
    bounds: dict[str, dict[str, Any]] = {
        "hypothesis": {"maxLength": 300},
        "expectation": {"properties": one["expectation"]["properties"] | {"by_percent": size}},
        "parents": {"maxItems": 3, "items": {"type": "string", "pattern": "^c-[0-9]{4,6}$"}},
        "edit": {"maxLength": 150},
    }
    if start is not None:
        del bounds["edit"]
        ids = {"type": "string", "enum": list(start.ids)}
        bounds["parents"] = {"minItems": len(start.ids), "maxItems": len(start.ids), "items": ids}
        return bounds | {"changes": {"minItems": 1, "maxItems": start.most}}
    if n == 1:
        return bounds
    item = answer_schema(space, n)["properties"]["proposals"]["items"]
    bounded = {name: below | bounds.get(name, {}) for name, below in item["properties"].items()}
    return {"proposals": {"minItems": n, "maxItems": n, "items": item | {"properties": bounded}}}


Lookup = Callable[[str], Genotype | None]
"""The canonical genotype of a candidate, by its id; None where there is no such candidate."""


def parse_answers(
    text: str, space: Space, n: int = 1, lookup: Lookup = lambda _id: None
) -> tuple[list[tuple[ProposalAnswer, Genotype]], list[str]]:
    """The usable proposals of an answer, and what is wrong with the others.

    A single proposal is taken where several were asked for, and the other way round: servers without
    structured output make nobody keep to a form.

    Args:
        text: the answer.
        space: judge of the genotypes.
        n: proposals that were asked for; further ones are left out.
        lookup: finds the parents that changes are made to.

    Returns:
        At least one proposal as the model wrote it, with its canonical genotype, no two of the same; one line
        for each that cannot be used.

    Raises:
        ProposalError: none can be used: no JSON, other fields than asked for, no member of the space.
    """
    data = find_json(text)
    several = data.get("proposals")
    if set(data) != {"proposals"} or not isinstance(several, list):
        return [_proposal(data, space, lookup)], []
    found: dict[str, tuple[ProposalAnswer, Genotype]] = {}
    problems = []
    for number, item in enumerate(several[:MOST], start=1):
        try:
            if not isinstance(item, dict):
                raise ProposalError("is no JSON object")
            answer, genotype = _proposal(item, space, lookup)
            if fingerprint(genotype) in found:
                raise ProposalError("has the genotype of an earlier one of this answer")
        except ProposalError as error:
            problems.append(f"proposal {number}: {error.message}")
        else:
            found[fingerprint(genotype)] = answer, genotype
    if not found:
        raise ProposalError("; ".join(problems[:5]) or "proposals: the list is empty")
    return list(found.values())[:n], problems


def _object(properties: dict[str, Any], description: str = "") -> dict[str, Any]:
    """An object with exactly these properties."""
    told = {"description": description} if description else {}
    return {
        "type": "object",
        **told,
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def _proposal(data: dict[str, Any], space: Space, lookup: Lookup) -> tuple[ProposalAnswer, Genotype]:
    try:
        answer = ProposalAnswer.model_validate(data)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc']) or 'answer'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)[:5]
        ]
        raise ProposalError("; ".join(problems)) from None
    if answer.changes is None:
        return answer, space.validate(answer.genotype)
    known = lookup(answer.parents[0]) if answer.parents else None
    if known is None:
        raise ProposalError("parents: changes need a known network that they are made to, as its first entry")
    if space.kind == "code":
        raise ProposalError("changes: source is not changed by genes, write all of it as genotype")
    parent = space.validate(known)  # a server without structured output lets it name one that is no member
    genotype = changed(space, parent, answer.changes)
    return answer.model_copy(update={"edit": difference(parent, genotype)}), genotype


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


def find_cut_json(text: str) -> dict[str, Any]:
    """What is whole in a JSON object that was cut: its last text is left out where that has no end.

    Raises:
        ProposalError: there is none, or something else is wrong with it.
    """
    text = _THINKING.sub("", text)
    _, brace, rest = text.partition("{")
    try:
        found = from_json(brace + rest, allow_inf_nan=False, allow_partial=True)
    except ValueError as error:
        raise ProposalError(f"the answer is no JSON object that was cut: {error}") from None
    if not isinstance(found, dict):
        raise ProposalError("the answer holds no JSON object")
    return found


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
