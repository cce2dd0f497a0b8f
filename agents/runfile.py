"""The run file: one YAML that describes a whole experiment, read by one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    Field,
    ValidationError,
    field_validator,
)

from cambrian.agents.errors import RunFileError, UnknownNameError, UserError
from cambrian.agents.population.model import CONTROL_ARM, LLM_ARM
from cambrian.agents.sections import (
    MAY_BE_OFF,
    AnalystSection,
    ArmSection,
    BudgetSection,
    ChampionsSection,
    ChecksSection,
    Constraint,
    LatencySection,
    LLMSection,
    MLflowSection,
    NoiseSection,
    ObjectiveSection,
    PredictorSection,
    SandboxSection,
    Section,
    TaskSection,
    parse_duration,
)
from cambrian.sandbox import SANDBOXES
from cambrian.sandbox.devices import Device, DeviceName
from cambrian.search_spaces import SPACES, TASKS, near_names
from cambrian.search_spaces.finding import absolute
from cambrian.search_spaces.recipe_genes import parse_choice
from cambrian.search_spaces.yaml_text import read_mapping


class RunConfig(Section):
    """One experiment: everything that a run needs to be launched, and launched again.

    Attributes:
        name: short name; the run's id is this and the time it was started.
        space: a name, or the path of a space folder, relative to the run file's folder.
        seed: of proposals and trainings.
        slots: jobs at a time.
        cost: the second objective of the Pareto front, minimised.
        objective: what candidates are ranked by.
        constraints: hard limits; a candidate outside them cannot win.
        baselines: the space's known networks to evaluate first, for comparison.
        warmup: proposals of the random arm before the others start; they count as its share.
        arms: weights by arm. `random` is the control arm: its weight is reserved, not competed for.
        recipe_genes: parts of the training recipe that are searched beside the architecture: a list of names,
            or each with a choice in the language of space files; None stands for the usual values.
        devices: places that `latency.device` may name.
        review: `gate` parks every proposal until a person has approved it.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    space: str
    task: TaskSection
    seed: int = Field(default=0, ge=0)
    slots: int = Field(default=2, ge=1, le=256)
    budget: BudgetSection
    cost: Literal["latency_ms", "latency_ratio", "params", "flops"] = "latency_ms"
    objective: ObjectiveSection = ObjectiveSection()
    constraints: tuple[Constraint, ...] = ()
    baselines: tuple[str, ...] = ()
    warmup: int = Field(default=6, ge=0)
    arms: dict[str, ArmSection] = Field(
        default_factory=lambda: {
            "random": ArmSection(weight=0.1),
            "guided": ArmSection(weight=0.6),
            "mutation": ArmSection(weight=0.08),
            "crossover": ArmSection(weight=0.04),
            "local": ArmSection(weight=0.03),
            "llm": ArmSection(weight=0.15),
        }
    )
    recipe_genes: dict[str, Any] = Field(default_factory=dict)
    review: Annotated[Literal["off", "gate"], MAY_BE_OFF] = "off"
    llm: LLMSection = LLMSection()
    analyst: AnalystSection = AnalystSection()
    sandbox: SandboxSection = SandboxSection()
    latency: LatencySection = LatencySection()
    devices: dict[DeviceName, Device] = Field(default_factory=dict)
    checks: ChecksSection = ChecksSection()
    predictor: PredictorSection = PredictorSection()
    noise: NoiseSection = NoiseSection()
    champions: ChampionsSection = ChampionsSection()
    mlflow: MLflowSection = MLflowSection()

    @field_validator("objective", mode="before")
    @classmethod
    def _objective_by_kind(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("llm", mode="before")
    @classmethod
    def _llm_in_short(cls, value: object) -> object:
        return {"local": "default"} if value == "local" else value

    @field_validator("task", mode="before")
    @classmethod
    def _task_by_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("recipe_genes", mode="before")
    @classmethod
    def _recipe_genes_are_choices(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(f"write [{value}], a list")
        if isinstance(value, list | tuple):
            twice = [str(name) for i, name in enumerate(value) if name in value[:i]]
            if twice:
                raise ValueError(f"{twice[0]} stands there twice")
            value = {str(name): None for name in value}
        if isinstance(value, Mapping):
            for name, raw in value.items():
                try:
                    parse_choice(str(name), raw)
                except UserError as error:
                    raise ValueError(str(error)) from None
        return value

    @field_validator("constraints", mode="before")
    @classmethod
    def _constraints_as_text(cls, value: object) -> object:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list | tuple):
            return [Constraint.parse(item) if isinstance(item, str) else item for item in value]
        return value

    @field_validator("arms", mode="before")
    @classmethod
    def _arms_as_numbers(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return {k: {"weight": v} if isinstance(v, int | float) else v for k, v in value.items()}
        return value

    @field_validator("budget", mode="before")
    @classmethod
    def _budget_in_short(cls, value: object) -> object:
        if isinstance(value, int | str) and not isinstance(value, bool):
            return {key.partition(".")[2]: part for key, part in parse_budget(str(value)).items()}
        return value

    @property
    def wants_model(self) -> bool:
        """Whether the run is of no use without its models: that was said, or no other arm is guided."""
        if self.llm.required is not None:
            return self.llm.required
        return [n for n, arm in self.arms.items() if arm.weight > 0 and n != CONTROL_ARM] == [LLM_ARM]

    @property
    def limits_money(self) -> bool:
        """Whether the run, or a role of its models, may spend so much money and no more."""
        roles = self.llm.roles.values()
        return self.budget.money is not None or any(role.money is not None for role in roles)

    @property
    def target_ms(self) -> float | None:
        """The target of the soft latency; None when that is not what candidates are ranked by."""
        if self.objective.kind != "soft-latency":
            return None
        bounds = [c.bound for c in self.constraints if c.name == "latency_ms" and c.op == "<="]
        return self.objective.target_ms or min(bounds, default=None)

    @field_validator("budget")
    @classmethod
    def _budget_is_finite(cls, value: BudgetSection) -> BudgetSection:
        if value.evaluations is None and value.wall_s is None:
            raise ValueError("set 'evaluations' or 'wall_s': a run without either would never end")
        return value


def load_run_file(path: Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read and validate a run file.

    Args:
        path: the YAML file.
        overrides: dotted key to value, applied over the file's content (`{"budget.wall_s": "10m"}`).

    Raises:
        RunFileError: unreadable, not YAML, unknown keys (near names are suggested), values out of range,
            unknown space, task or arm.
    """
    data = read_mapping(path, "run file", RunFileError)
    for key, value in (overrides or {}).items():
        _set(data, key, value)
    config = parse_config(data, str(path), base=path.parent)
    _check_addresses(config, str(path))
    return config


def parse_config(
    data: Mapping[str, Any], origin: str, *, base: Path | None = None, kept_space: bool = False
) -> RunConfig:
    """Validate `data`; errors name `origin` and the field, one line each.

    Args:
        data: what a run file holds.
        origin: what `data` came from, for messages.
        base: what the path of a space folder starts from, which becomes absolute; None is the working
            directory.
        kept_space: the run keeps a copy of its space, so that it need not be where it was.
    """
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        lines = [_explain(dict(item)) for item in error.errors()]
        raise RunFileError(f"{origin}: " + "; ".join(lines)) from error
    from cambrian.agents.planner import ARMS

    if not kept_space:
        try:
            SPACES.find(config.space, base)
        except UnknownNameError as error:
            raise RunFileError(f"{origin}: space: {error.message}", hint=error.hint) from error
        config = config.model_copy(update={"space": absolute(config.space, base or Path())})
    for what, name, known in (
        ("task.name", config.task.name, TASKS.names()),
        ("sandbox.kind", config.sandbox.kind, ["auto", *SANDBOXES.names()]),
        *(("arms", arm, ARMS.names()) for arm in config.arms),
    ):
        if name not in known:
            raise RunFileError(f"{origin}: {what}: unknown name {name!r}", hint=near_names(name, known))
    if not any(arm.weight > 0 for arm in config.arms.values()):
        raise RunFileError(f"{origin}: arms: all weights are 0", hint="give one arm a weight above 0")
    _check_latency(config, origin)
    _check_ranking(config, origin)
    return config


def _check_addresses(config: RunConfig, origin: str) -> None:
    """Only of new runs: the file is kept with the run, and earlier runs with a password go on."""
    from cambrian.agents.planner.endpoint import holds_credentials

    found = {f"llm.models.{i}": model for i, model in enumerate(config.llm.models)}
    for place, url, key in (
        ("llm", config.llm.base_url, "OPENAI_API_KEY"),
        *((place, model.base_url, model.key_env) for place, model in found.items()),
    ):
        if url is not None and holds_credentials(url):
            raise RunFileError(
                f"{origin}: {place}.base_url: a user name or password in it would be kept with the run",
                hint=f"leave it out, and set {key} in the environment",
            )


def _check_latency(config: RunConfig, origin: str) -> None:
    device = config.latency.device
    if device is not None and device not in config.devices:
        hint = near_names(device, list(config.devices)) if config.devices else "describe it under 'devices:'"
        raise RunFileError(f"{origin}: latency.device: unknown name {device!r}", hint=hint)
    if config.latency.throughput_batch is None and any(c.name == "throughput" for c in config.constraints):
        raise RunFileError(
            f"{origin}: latency.throughput_batch: a limit on 'throughput' needs it", hint="set it to 64"
        )


def _check_ranking(config: RunConfig, origin: str) -> None:
    if config.objective.kind == "soft-latency" and config.target_ms is None:
        raise RunFileError(
            f"{origin}: objective.target_ms: 'soft-latency' needs a target",
            hint="set it, or a constraint such as 'latency_ms <= 2'",
        )
    most = config.budget.evaluations
    top, seeds = config.champions.counts(0)
    repeats = config.noise.count(0) + top * seeds
    if most is not None and 2 * repeats > most:
        raise RunFileError(
            f"{origin}: noise, champions: {repeats} repeats are more than half of {most} evaluations",
            hint="ask for fewer, or leave both out: then they go by the budget",
        )


_PLAIN = {
    "model_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of names to values",
    "tuple_type": "should be a list",
    "string_pattern_mismatch": "use lower-case letters, digits and hyphens only, at most 40",
}
"""What pydantic says in words of its own classes, in words of the file's."""


def _set(data: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    here = data
    for key in parents:
        below = here.get(key)
        if isinstance(below, str) and key == "task":
            below = {"name": below}
        if not isinstance(below, dict):
            below = {}
        here[key] = below = dict(below)
        here = below
    here[last] = value


def _explain(item: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"] if part != "[key]")  # pydantic's word for a name
    if item["type"] == "extra_forbidden":
        known = _keys_at(tuple(item["loc"][:-1]))
        return f"{place}: unknown key, {near_names(str(item['loc'][-1]), known)}"
    message = _PLAIN.get(item["type"]) or str(item["msg"]).removeprefix("Value error, ")
    given = item.get("input")
    plain = item["type"] != "missing" and not isinstance(given, dict | list | tuple)
    shown = f" (given {given!r})" if plain else ""
    return f"{place}: {message[:1].lower()}{message[1:]}{shown}"


def _keys_at(place: tuple[Any, ...]) -> list[str]:
    model: Any = RunConfig
    for part in place:
        fields = getattr(model, "model_fields", None)
        if fields is not None and part in fields:
            model = _below(fields[part].annotation)
        elif fields is None and (inner := get_args(model)):  # a name or a number: of a mapping or a list
            model = _below(inner[1] if get_origin(model) is dict else inner[0])
    return list(getattr(model, "model_fields", {}))


def _below(annotation: Any) -> Any:
    """What stands there where anything does: without `Annotated` and `None`."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = next(each for each in get_args(annotation) if each is not type(None))
    return annotation


def parse_budget(text: str) -> dict[str, Any]:
    """Overrides from `--budget`: `10m`, `90s`, `50` (evaluations), or `evaluations=50,wall_s=10m`.

    Raises:
        RunFileError: none of these forms, or two limits of one kind.
    """
    found: dict[str, Any] = {}

    def limit(kind: str, value: Any) -> None:
        if f"budget.{kind}" in found:
            raise RunFileError(f"--budget: {kind} is limited twice in {text!r}", hint="name each kind once")
        found[f"budget.{kind}"] = value

    for part in text.split(","):
        key, sep, value = part.strip().partition("=")
        if sep:
            if key not in BudgetSection.model_fields:
                raise RunFileError(
                    f"--budget: unknown kind {key!r}", hint=near_names(key, list(BudgetSection.model_fields))
                )
            limit(key, yaml.safe_load(value))
        elif key.isdigit():
            limit("evaluations", int(key))
        elif isinstance(seconds := parse_duration(key), float) and math.isfinite(seconds):
            limit("wall_s", seconds)
        else:
            raise RunFileError(
                f"--budget: cannot read {part!r}", hint="write 10m, 50 or evaluations=50,wall_s=10m"
            )
    return found
