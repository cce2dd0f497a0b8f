"""The run file: one YAML that describes a whole experiment, read by one model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from cambrian.agents.errors import RunFileError, UnknownNameError, UserError
from cambrian.sandbox import SANDBOXES
from cambrian.sandbox.devices import Device, DeviceName, EngineAddress, GpuId
from cambrian.search_spaces import SPACES, TASKS, near_names
from cambrian.search_spaces.finding import absolute
from cambrian.search_spaces.recipe_genes import parse_choice
from cambrian.search_spaces.yaml_text import read_mapping

_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
ConstraintName = Literal["latency_ms", "latency_ratio", "throughput", "params", "flops", "memory_mb"]
CONSTRAINT_NAMES: tuple[str, ...] = get_args(ConstraintName)
RELATIVE = frozenset({"latency_ratio", "throughput"})
"""Measured values that no job knows a limit of: they are measured before anything is trained."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_duration(value: object) -> object:
    """Seconds from `90`, `"90s"`, `"10m"` or `"2h"`; anything else is passed on for pydantic to refuse."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*([\d.]+)\s*(s|m|min|h)\s*", value)):
        return float(found[1]) * _SECONDS[found[2]]
    return value


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]


class Constraint(_Section):
    """A hard ceiling or floor on a measured value, written `latency_ms <= 2` or `params <= 100k`.

    `latency_ratio` is latency by that of the reference network, `throughput` is samples a second in batches.
    """

    name: ConstraintName
    op: Literal["<=", ">="]
    bound: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read `NAME <= NUMBER`, where the number may end in k, m or g.

        Raises:
            ValueError: not of that form, or an unknown name.
        """
        found = re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*([\d.]+(?:[eE][+-]?\d+)?)\s*([kKmMgG]?)\s*", text)
        if found is None:
            raise ValueError(f"{text!r} is not of the form 'latency_ms <= 2' or 'params <= 100k'")
        name, op, number, unit = found.groups()
        if name not in CONSTRAINT_NAMES:
            raise ValueError(f"unknown value {name!r}: {near_names(name, list(CONSTRAINT_NAMES))}")
        try:
            bound = float(number) * _UNITS.get(unit.lower(), 1.0)
        except ValueError:
            raise ValueError(f"{text!r}: {number!r} is not a number") from None
        return cls.model_validate({"name": name, "op": op, "bound": bound})

    def holds(self, value: float) -> bool:
        """Whether `value` keeps the constraint."""
        return value <= self.bound if self.op == "<=" else value >= self.bound

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self._bound_text()}"

    def _bound_text(self) -> str:
        """The bound; counts with their unit where that loses no digit, so that `parse` reads it back."""
        if self.name in {"params", "flops", "throughput"}:
            for unit, size in reversed(_UNITS.items()):
                text = f"{self.bound / size:g}"
                if self.bound >= size and float(text) * size == self.bound:
                    return f"{text}{unit if unit == 'k' else unit.upper()}"
        return f"{self.bound:.15g}"


class TaskSection(_Section):
    """Which task, and its own options (`data`, `path`, `recipe`, ...), handed to the task's factory."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class BudgetSection(_Section):
    """Limits of a run; the first one that is spent ends it. Absent means unlimited.

    Attributes:
        evaluations: sandbox jobs.
        wall_s: seconds that the run was active, over all resumes.
        tokens: prompt and answer tokens of the model.
        calls: requests to the model, retries included.
    """

    evaluations: int | None = Field(default=None, ge=1)
    wall_s: Duration | None = None
    tokens: int | None = Field(default=None, ge=1)
    calls: int | None = Field(default=None, ge=1)


class ArmSection(_Section):
    """Weight of one arm in the sharing of the budget; arms at 0 are off."""

    weight: float = Field(default=1.0, ge=0)


class LLMSection(_Section):
    """The model behind the LLM arm. The key comes from `OPENAI_API_KEY` only.

    Attributes:
        model: name sent to the endpoint; None takes `CAMBRIAN_MODEL` from the environment.
        base_url: endpoint; None takes `OPENAI_BASE_URL`, else OpenAI's own.
        api: chat completions or responses.
        structured: ask for JSON by schema; off for servers that cannot.
        timeout_s: for one request.
        retries: further tries after a transient failure.
        repairs: further turns after an answer that is no member of the space.
    """

    model: str | None = None
    base_url: str | None = None
    api: Literal["chat", "responses"] = "chat"
    structured: bool = True
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int = Field(default=2048, ge=16)
    timeout_s: Duration = 120.0
    retries: int = Field(default=2, ge=0)
    repairs: int = Field(default=1, ge=0)


class SandboxSection(_Section):
    """Where candidates run and what one job may use.

    Attributes:
        kind: `auto` takes Docker where an engine answers and the image can be had, else a process.
        base_image: what the image is built from; None takes a local `cambrian-base`, else a Python image.
        runtime: of the engine, such as `runsc`; None is its default.
        engine: `unix://...`, `tcp://...`, `ssh://...` or `context:NAME`; None takes `DOCKER_HOST`, else the
            local one.
        gpu: number or UUID of a GPU to train on; None trains on the CPU.
        trust_generated_code: let code that a model wrote run without a container.
    """

    kind: str = "auto"
    wall_s: Duration = 300.0
    memory_mb: int = Field(default=2048, ge=64)
    threads: int = Field(default=1, ge=1)
    base_image: str | None = None
    runtime: str | None = Field(default=None, min_length=1)
    engine: EngineAddress | None = None
    gpu: GpuId | None = None
    trust_generated_code: bool = False

    @model_validator(mode="after")
    def _some_things_need_containers(self) -> SandboxSection:
        if self.kind in {"process", "table"}:
            for name in ("runtime", "engine", "gpu"):
                if getattr(self, name) is not None:
                    raise ValueError(f"'{name}' needs a container: set 'kind: docker'")
        return self


class LatencySection(_Section):
    """How latency is measured, and where.

    Attributes:
        batch: samples per call.
        warmup: calls before the clock starts.
        repeats: timed blocks of calls.
        throughput_batch: samples per call where samples a second are measured; None leaves that out.
        device: name of an entry of `devices`; None measures where the training runs.
    """

    batch: int = Field(default=1, ge=1)
    warmup: int = Field(default=10, ge=0)
    repeats: int = Field(default=20, ge=3)
    throughput_batch: int | None = Field(default=64, ge=1)
    device: str | None = None


class PredictorSection(_Section):
    """When the predictor may screen.

    Attributes:
        enabled: off means that every admitted candidate is trained.
        min_evaluations: it abstains before that many candidates are evaluated.
        min_tau: it abstains while its cross-validated Kendall tau is below this.
        pool: drafts that a cheap arm makes for one place; the predictor picks among them.
    """

    enabled: bool = True
    min_evaluations: int = Field(default=12, ge=5)
    min_tau: float = Field(default=0.3, ge=0, le=1)
    pool: int = Field(default=8, ge=1)


class MLflowSection(_Section):
    """Where the population is recorded; None is SQLite beside the runs."""

    enabled: bool = True
    tracking_uri: str | None = None


class RunConfig(_Section):
    """One experiment: everything that a run needs to be launched, and launched again.

    Attributes:
        name: short name; the run's id is this and the time it was started.
        space: a name, or the path of a space folder, relative to the run file's folder.
        seed: of proposals and trainings.
        slots: jobs at a time.
        cost: the second objective of the Pareto front, minimised.
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
    constraints: tuple[Constraint, ...] = ()
    baselines: tuple[str, ...] = ()
    warmup: int = Field(default=6, ge=0)
    arms: dict[str, ArmSection] = Field(
        default_factory=lambda: {
            "random": ArmSection(weight=0.25),
            "mutation": ArmSection(weight=0.45),
            "crossover": ArmSection(weight=0.1),
            "llm": ArmSection(weight=0.2),
        }
    )
    recipe_genes: dict[str, Any] = Field(default_factory=dict)
    review: Literal["off", "gate"] = "off"
    llm: LLMSection = LLMSection()
    sandbox: SandboxSection = SandboxSection()
    latency: LatencySection = LatencySection()
    devices: dict[DeviceName, Device] = Field(default_factory=dict)
    predictor: PredictorSection = PredictorSection()
    mlflow: MLflowSection = MLflowSection()

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
    return parse_config(data, str(path), base=path.parent)


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
    return config


def _check_latency(config: RunConfig, origin: str) -> None:
    device = config.latency.device
    if device is not None and device not in config.devices:
        hint = near_names(device, list(config.devices)) if config.devices else "describe it under 'devices:'"
        raise RunFileError(f"{origin}: latency.device: unknown name {device!r}", hint=hint)
    if config.latency.throughput_batch is None and any(c.name == "throughput" for c in config.constraints):
        raise RunFileError(
            f"{origin}: latency.throughput_batch: a limit on 'throughput' needs it", hint="set it to 64"
        )


_PLAIN = {
    "model_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of names to values",
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


_NAMED: dict[str, type[BaseModel]] = {"arms": ArmSection, "devices": Device}
"""Sections whose keys are names, and what each name stands for."""


def _keys_at(place: tuple[Any, ...]) -> list[str]:
    model: Any = RunConfig
    for part in place[:1]:
        model = _NAMED.get(part) or RunConfig.model_fields[part].annotation
    return list(getattr(model, "model_fields", {}))


def parse_budget(text: str) -> dict[str, Any]:
    """Overrides from `--budget`: `10m`, `90s`, `50` (evaluations), or `evaluations=50,wall_s=10m`.

    Raises:
        RunFileError: none of these forms.
    """
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, sep, value = part.strip().partition("=")
        if sep:
            if key not in BudgetSection.model_fields:
                raise RunFileError(
                    f"--budget: unknown kind {key!r}", hint=near_names(key, list(BudgetSection.model_fields))
                )
            found[f"budget.{key}"] = yaml.safe_load(value)
        elif key.isdigit():
            found["budget.evaluations"] = int(key)
        elif isinstance(seconds := parse_duration(key), float) and math.isfinite(seconds):
            found["budget.wall_s"] = seconds
        else:
            raise RunFileError(
                f"--budget: cannot read {part!r}", hint="write 10m, 50 or evaluations=50,wall_s=10m"
            )
    return found
