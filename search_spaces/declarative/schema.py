"""JSON schema of genotypes, in the subset that strict structured output accepts."""

from __future__ import annotations

from typing import Any

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.grammar import KIND, Domain, Field, Options, Record, Repeat, Scalar


def schema(definition: Definition) -> dict[str, Any]:
    """The schema of a canonical genotype; see `Space.schema` for what is used of the language.

    Rules that contain themselves stand once under `$defs` and are referred to; all others are written out
    where they occur. A reference stands alone, as strict back-ends want it. How deep rules may be nested, and
    what binds several genes, cannot be said in a schema: `validate` has the last word.
    """
    grammar = definition.grammar
    maker = _Maker({id(grammar.rules[name]): name for name in grammar.recursive})
    made = maker.of(grammar.start)
    if grammar.recursive:
        made = {**made, "$defs": {name: maker.written_out(grammar.rules[name]) for name in maker.used()}}
    return made


class _Maker:
    def __init__(self, recursive: dict[int, str]) -> None:
        self.recursive = recursive

    def used(self) -> list[str]:
        return sorted(self.recursive.values())

    def of(self, domain: Domain, about: str = "") -> dict[str, Any]:
        """`domain` where it occurs, described by `about`."""
        if id(domain) in self.recursive:
            return {"$ref": f"#/$defs/{self.recursive[id(domain)]}"}
        return self.written_out(domain, about)

    def written_out(self, domain: Domain, about: str = "") -> dict[str, Any]:
        about = " ".join((about or domain.about).split())
        described = {"description": about} if about else {}
        if isinstance(domain, Scalar):
            return {**described, **_values(domain.values)}
        if isinstance(domain, Repeat):
            bounds = {"minItems": domain.least, "maxItems": domain.most}
            return {"type": "array", **described, "items": self.of(domain.item), **bounds}
        if isinstance(domain, Options):
            return {**described, "anyOf": [self.written_out(case) for case in domain.cases.values()]}
        return self.record(domain, described)

    def record(self, domain: Record, described: dict[str, Any]) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        if domain.kind is not None:
            properties[KIND] = {"type": "string", "enum": [domain.kind]}
        for field in domain.fields:
            properties[field.name] = self.of(field.domain, _about(field))
        return {
            "type": "object", **described, "properties": properties,
            "required": list(properties), "additionalProperties": False,
        }  # fmt: skip


def _about(field: Field) -> str:
    about = field.about or field.domain.about
    if field.when is None:
        return about
    only = f"counts only while {field.when.text}"
    return f"{about}; {only}" if about else only


def _values(values: tuple[Any, ...]) -> dict[str, Any]:
    """An enumeration; one for each type where values are of several."""
    truths = [value for value in values if isinstance(value, bool)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    texts = [value for value in values if isinstance(value, str)]
    number = "integer" if all(isinstance(value, int) for value in numbers) else "number"
    parts = [
        {"type": kind, "enum": found}
        for kind, found in (("boolean", truths), (number, numbers), ("string", texts))
        if found
    ]
    return parts[0] if len(parts) == 1 else {"anyOf": parts}
