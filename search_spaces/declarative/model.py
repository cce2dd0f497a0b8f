"""`space.yaml` as data: what may stand in it, before anything is compiled."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cambrian.search_spaces.space import Signature

Scalar = bool | int | float | str
MAX_ITEMS = 64
"""The longest list that `repeat` may ask for: each item is a choice that every edit and drawing visits."""
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


def _count(value: object) -> object:
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kKmMgG]?)\s*", value)):
        return round(float(found[1]) * _UNITS[found[2].lower()])
    return value


Count = Annotated[int, BeforeValidator(_count), Field(ge=1)]
"""A number such as `300000`, `300k` or `3M`."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RequireModel(_Section):
    """A rule over several fields."""

    rule: str
    else_: str = Field(alias="else")


class RecordModel(_Section):
    """A record, or one option."""

    about: str = ""
    fields: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ChoiceModel] = {}
    require: tuple[RequireModel, ...] = ()
    build: list[Any] | dict[str, Any] | str | None = None
    label: str | None = None
    weight: float = Field(default=1.0, ge=0)


class RuleModel(RecordModel):
    """A record or a set of options."""

    options: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], RecordModel] | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> RuleModel:
        if self.options is not None and (self.fields or self.build is not None or self.require):
            raise ValueError("has options, so fields, require and build belong into each option")
        if self.options is not None and len(self.options) < 1:
            raise ValueError("options: needs at least one")
        return self


KINDS = ("choice", "integer", "log_integer", "number", "log_number", "boolean", "use", "repeat", "fields")
"""The keys of which a choice has exactly one."""
_BELONGS = {
    "step": {"integer", "number"}, "per_octave": {"log_integer"}, "multiple_of": {"log_integer"},
    "per_decade": {"log_number"}, "min": {"repeat"}, "max": {"repeat"},
    "require": {"fields"}, "label": {"fields"}, "ordered": {"choice"},
    "weights": {"choice", "integer", "log_integer", "number", "log_number", "boolean", "repeat"},
}  # fmt: skip


class ChoiceModel(_Section):
    """What a field may be; see the table of choices in LANGUAGE.md."""

    choice: tuple[Scalar, ...] | None = Field(default=None, min_length=1)
    integer: tuple[int, int] | None = None
    log_integer: tuple[int, int] | None = None
    number: tuple[float, float] | None = None
    log_number: tuple[float, float] | None = None
    boolean: bool | None = None
    use: str | None = None
    repeat: ChoiceModel | None = None
    fields: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ChoiceModel] | None = None

    step: float | None = Field(default=None, gt=0)
    per_octave: int = Field(default=1, ge=1)
    multiple_of: int = Field(default=1, ge=1)
    per_decade: int = Field(default=3, ge=1)
    min: int = Field(default=1, ge=0)
    max: int = Field(default=4, ge=1, le=MAX_ITEMS)
    weights: tuple[float, ...] | None = None
    ordered: bool | None = None

    about: str = ""
    default: Any = None
    when: str | None = None
    otherwise: Any = None
    require: tuple[RequireModel, ...] = ()
    build: list[Any] | dict[str, Any] | str | None = None
    label: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        if isinstance(value, list):
            return {"choice": value}
        return {"use": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exactly_one_kind(self) -> ChoiceModel:
        kinds = [name for name in KINDS if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"needs exactly one of {', '.join(KINDS)}; has {' and '.join(kinds) or 'none'}")
        if self.build is not None and kinds[0] in ("use", "repeat"):
            raise ValueError(f"build belongs to a value or to fields, not to {kinds[0]}")
        for key, owners in _BELONGS.items():
            if key in self.model_fields_set and kinds[0] not in owners:
                raise ValueError(f"{key} belongs to {' or '.join(sorted(owners))}, not to {kinds[0]}")
        if (self.when is None) != ("otherwise" not in self.model_fields_set):
            raise ValueError("when and otherwise need each other")
        if self.repeat is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self

    @property
    def kind(self) -> str:
        """The one of `KINDS` that is given."""
        return next(name for name in KINDS if getattr(self, name) is not None)


class LimitsModel(_Section):
    """Ceilings, read at the reference."""

    params: Count | None = None
    macs: Count | None = None
    depth: Count | None = None


class PublishedModel(_Section):
    """Where a baseline's published parameter count holds.

    Attributes:
        tolerance: relative difference that is allowed, for counts published rounded.
    """

    input_shape: tuple[int, ...]
    n_outputs: int
    vocabulary: int | None = None
    tolerance: float = Field(default=0.0, ge=0, lt=0.2)


class BaselineModel(_Section):
    """A known network as a member of the space."""

    about: str = ""
    source: str = ""
    parameters: Count | None = None
    at: PublishedModel | None = None
    genotype: dict[str, Any]


class SpaceFile(_Section):
    """A whole `space.yaml`; LANGUAGE.md tells what each key means."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    version: str = Field(min_length=1, max_length=20)
    title: str = Field(min_length=1, max_length=120)
    about: str
    hints: str = ""
    tasks: tuple[str, ...] = ()
    reference: Signature
    also_fits: tuple[Signature, ...] = ()
    limits: LimitsModel = LimitsModel()
    sampling: str = Field(default="weights", pattern="^(weights|uniform)$")
    max_depth: int = Field(default=8, ge=1, le=64)
    genes: dict[str, ChoiceModel] = {}
    rules: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], RuleModel] = Field(min_length=1)
    baselines: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")], BaselineModel] = {}
    features: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _version_as_text(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("version"), int | float):
            return {**value, "version": str(value["version"])}
        return value


RecordModel.model_rebuild()
RuleModel.model_rebuild()
ChoiceModel.model_rebuild()
SpaceFile.model_rebuild()
