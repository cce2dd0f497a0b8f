"""The sections of a run file, each a model of its own."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from cambrian.agents.evaluator.predictors import AUTO, PREDICTORS
from cambrian.sandbox.devices import EngineAddress, GpuId
from cambrian.sandbox.examination.proxies import PROXIES
from cambrian.sandbox.examination.report import CheckName
from cambrian.search_spaces import near_names

_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
ConstraintName = Literal["latency_ms", "latency_ratio", "throughput", "params", "flops", "memory_mb"]
CONSTRAINT_NAMES: tuple[str, ...] = get_args(ConstraintName)
RELATIVE = frozenset({"latency_ratio", "throughput"})
"""Measured values that no job knows a limit of: they are measured before anything is trained."""
LEAST_FOR_REPEATS = 40
"""Evaluations from which on a run repeats some with fresh seeds without being asked to."""
NOISE_SHARE, CHAMPIONS_SHARE = 0.05, 0.1
"""Of the evaluations at most."""
TOP_CHAMPIONS, FEWEST_SEEDS, MOST_SEEDS = 3, 2, 5


class Section(BaseModel):
    """What all sections share: no unknown keys, no changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_duration(value: object) -> object:
    """Seconds from `90`, `"90s"`, `"10m"` or `"2h"`; anything else is passed on for pydantic to refuse."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*([\d.]+)\s*(s|m|min|h)\s*", value)):
        return float(found[1]) * _SECONDS[found[2]]
    return value


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
MAY_BE_OFF = BeforeValidator(lambda value: "off" if value is False else value)
"""YAML reads `off` as false."""


class Constraint(Section):
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


class TaskSection(Section):
    """Which task, and its own options (`data`, `path`, `recipe`, ...), handed to the task's factory."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class BudgetSection(Section):
    """Limits of a run; the first one that is spent ends it. Absent means unlimited.

    Attributes:
        evaluations: sandbox jobs.
        wall_s: seconds that the run was active, over all resumes.
        tokens: prompt and answer tokens of all models.
        calls: requests to models, retries included.
        money: US dollars for models, by their prices.
    """

    evaluations: int | None = Field(default=None, ge=1)
    wall_s: Duration | None = None
    tokens: int | None = Field(default=None, ge=1)
    calls: int | None = Field(default=None, ge=1)
    money: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def timed(self) -> bool:
        """Whether the time limits how much is trained, and not the number of evaluations."""
        return self.evaluations is None and self.wall_s is not None


class ArmSection(Section):
    """Weight of one arm in the sharing of the budget; arms at 0 are off."""

    weight: float = Field(default=1.0, ge=0)


class PriceSection(Section):
    """What a model costs, in US dollars for a million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)


Role = Literal["propose", "repair", "analyse"]
"""What a model is asked for."""


class RoleSection(Section):
    """One role's own settings; what is None is as in `llm`.

    Attributes:
        model: name of the model that plays it; None leaves `propose` to the portfolio over `models`, and the
            other roles to the first model.
        max_tokens: of an answer; a local model gets no more than 400 for `analyse` without it.
        calls: most requests of this role, retries included.
        tokens: most tokens of this role.
        money: most US dollars for this role.
        wall_s: most seconds of waiting for this role's answers, all together.
    """

    model: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=16)
    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    money: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    wall_s: Duration | None = None


class ModelSection(Section):
    """One model of a portfolio over several; what is None is as in `llm`.

    Attributes:
        model: name sent to the endpoint, and by which roles call it.
        key_env: environment variable that holds its key.
    """

    model: str = Field(min_length=1)
    base_url: str | None = None
    api: Literal["chat", "responses"] | None = None
    structured: bool | None = None
    price: PriceSection | None = None
    key_env: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")


class LLMSection(Section):
    """The models behind the LLM arm and the analyst. Keys come from the environment only.

    Attributes:
        model: name sent to the endpoint; None takes `CAMBRIAN_MODEL` from the environment.
        base_url: endpoint; None takes `OPENAI_BASE_URL`, else OpenAI's own.
        local: a GGUF file that is served in this process instead, or `default` for the one that
            `CAMBRIAN_GGUF` names, else the installed one; `llm: local` is short for that.
        local_threads: of the processor that it may use.
        api: chat completions or responses.
        structured: ask for JSON by schema; off for servers that cannot.
        price: of `model`; None looks it up in the price table.
        models: further models; the portfolio shares proposals among them and `model` by what they bring.
        roles: settings of single roles.
        timeout_s: for one request.
        retries: further tries after a transient failure.
        repairs: further turns after an answer that is no member of the space.
        answers: what a model writes: a whole `genotype`, or `changes` of a parent's genes, which small models
            do better and one at a time; `auto` asks for changes where the model is `local`. Source is always
            written whole.
        prompt_tokens: most tokens of a question; the history is cut to fit.
        batch: proposals per call; `auto` asks for several where the prompt is what costs.
        ahead: proposals asked for before a slot needs them, so that none waits; `auto` is one a slot.
        failures: calls in a row without a usable answer after which a model is left alone for a while.
        probe_s: seconds until it is tried again; doubles with each failed try, up to an hour.
        required: stop, with all kept for `resume`, when no model can be asked any more; None does so when
            no other guided arm has a weight.
    """

    model: str | None = None
    base_url: str | None = None
    local: str | None = Field(default=None, min_length=1)
    local_threads: int = Field(default=1, ge=1)
    api: Literal["chat", "responses"] = "chat"
    structured: bool = True
    price: PriceSection | None = None
    models: tuple[ModelSection, ...] = ()
    roles: dict[Role, RoleSection] = Field(default_factory=dict)
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int = Field(default=2048, ge=16)
    answers: Literal["auto", "genotype", "changes"] = "auto"
    prompt_tokens: int = Field(default=8000, ge=500)
    timeout_s: Duration = 120.0
    retries: int = Field(default=2, ge=0)
    repairs: int = Field(default=1, ge=0)
    batch: Literal["auto"] | Annotated[int, Field(ge=1, le=16)] = "auto"
    ahead: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = "auto"
    failures: int = Field(default=3, ge=1)
    probe_s: Duration = 60.0
    required: bool | None = None

    @model_validator(mode="after")
    def _models_are_told_apart(self) -> LLMSection:
        names = [*([self.model] if self.model else []), *(each.model for each in self.models)]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise ValueError(f"models: {twice!r} stands there twice")
        if self.answers == "changes" and self.batch not in ("auto", 1):
            raise ValueError("'answers: changes' is asked for one at a time: set 'batch' to 1 or auto")
        if self.local is not None and self.base_url is not None:
            raise ValueError("'local' and 'base_url' exclude each other")
        return self

    @property
    def by_changes(self) -> bool:
        """Whether a model is asked for changes of a parent rather than for a whole genotype."""
        alone = self.batch in ("auto", 1)
        return self.answers == "changes" or (self.answers == "auto" and self.local is not None and alone)

    def role(self, role: Role) -> RoleSection:
        """The settings of `role`."""
        return self.roles.get(role, RoleSection())


class AnalystSection(Section):
    """The analyst, which asks of each candidate what it taught.

    Attributes:
        lessons: whose candidates a model is asked about; the verdict, which costs nothing, is of all.
        notes: most notes that a run keeps.
    """

    lessons: Annotated[Literal["llm", "all", "off"], MAY_BE_OFF] = "llm"
    notes: int = Field(default=12, ge=0, le=100)


class SandboxSection(Section):
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


class LatencySection(Section):
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


class PredictorSection(Section):
    """When the predictor may screen.

    Attributes:
        enabled: off means that every admitted candidate is trained.
        min_evaluations: it abstains before that many candidates are evaluated.
        min_tau: it abstains while its cross-validated Kendall tau is below this.
        pool: drafts that a cheap arm makes for one place; the predictor picks among them.
        model: which predictor; `auto` takes the one that ranks best in cross-validation, at each fit anew.
        earlier_runs: learn from earlier runs of the same space, task and recipe too: all of them, or those
            named.
    """

    enabled: bool = True
    model: str = "auto"
    earlier_runs: bool | tuple[str, ...] = False
    min_evaluations: int = Field(default=12, ge=5)
    min_tau: float = Field(default=0.3, ge=0, le=1)
    pool: int = Field(default=8, ge=1)

    @field_validator("model")
    @classmethod
    def _model_is_registered(cls, value: str) -> str:
        if value != AUTO and value not in (known := PREDICTORS.names()):
            raise ValueError(f"unknown predictor {value!r}: {near_names(value, [AUTO, *known])}")
        return value


class NoiseSection(Section):
    """How the noise of a task is measured at the start.

    Attributes:
        repeats: trainings of one known network with fresh seeds; None goes by the budget, 0 is off.
    """

    repeats: int | None = Field(default=None, ge=0, le=1000)

    def count(self, expected: float) -> int:
        """Repeats to make, of a run of `expected` evaluations: 5 % of them at most, unless it was said."""
        if self.repeats is not None:
            return self.repeats
        return int(min(NOISE_SHARE * expected, MOST_SEEDS)) if expected >= LEAST_FOR_REPEATS else 0


class ChampionsSection(Section):
    """Who is trained again with fresh seeds before the end. Both together None go by the budget.

    Attributes:
        top: how many of the best; 0 is off.
        seeds: fresh seeds for each; 0 is off.
    """

    top: int | None = Field(default=None, ge=0, le=100)
    seeds: int | None = Field(default=None, ge=0, le=1000)

    def counts(self, expected: float) -> tuple[int, int]:
        """`top` and `seeds` for a run of `expected` evaluations: 10 % of them at most, unless it was said."""
        if self.top is not None or self.seeds is not None:
            top = TOP_CHAMPIONS if self.top is None else self.top
            seeds = FEWEST_SEEDS if self.seeds is None else self.seeds
            return (top, seeds) if top and seeds else (0, 0)
        if expected < LEAST_FOR_REPEATS:
            return 0, 0
        most = int(min(CHAMPIONS_SHARE * expected, TOP_CHAMPIONS * MOST_SEEDS))
        top = min(TOP_CHAMPIONS, most // FEWEST_SEEDS)
        return top, most // top


class ObjectiveSection(Section):
    """What candidates are ranked by, within the hard limits.

    Attributes:
        kind: `pareto`: by score, while parents are drawn from the front of score and cost as well; `score`:
            by score alone; `soft-latency`: by score * (latency / target)^exponent, the reward of MnasNet (Tan
            et al., arXiv 1807.11626).
        target_ms: for `soft-latency`; None takes the bound of `latency_ms <= ...`.
        exponent: the paper's, by which doubling the latency is worth 5 % of the score.
    """

    kind: Literal["pareto", "score", "soft-latency"] = "pareto"
    target_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    exponent: float = Field(default=-0.07, le=0, ge=-10)

    @model_validator(mode="after")
    def _target_is_for_latency(self) -> ObjectiveSection:
        if self.target_ms is not None and self.kind != "soft-latency":
            raise ValueError("'target_ms' goes with 'kind: soft-latency'")
        return self


class ChecksSection(Section):
    """What is found out of a candidate before it is trained, beside its identity.

    Attributes:
        behaviour: `auto` checks generated code, and whatever is held to one of the demands below: the
            networks of trusted blocks are known to behave. A check costs some tenths of a second.
        proxies: names of zero-cost proxies to compute. They advise until they have proved themselves.
        proxy_min_tau: a proxy may keep candidates from being trained once the size of its rank correlation
            with this run's scores, Kendall's tau, exceeds this with 99 % confidence; 1 never lets it.
        causal: of sequences, a later position must not change features of an earlier one.
        max_exponent: of sequences, largest growth of work, memory and time with the length, as a power of it.
        forbid: checks whose notes are failures too, such as `determinism`.
    """

    behaviour: Literal["auto", "on", "off"] = "auto"
    proxies: tuple[str, ...] = ()
    proxy_min_tau: float = Field(default=0.3, ge=0, le=1)
    causal: bool = False
    max_exponent: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    forbid: tuple[CheckName, ...] = ()

    @field_validator("behaviour", mode="before")
    @classmethod
    def _yaml_reads_on_as_true(cls, value: object) -> object:
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @field_validator("proxies")
    @classmethod
    def _proxies_are_registered(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in PROXIES.names():
                raise ValueError(f"unknown proxy {name!r}: {near_names(name, PROXIES.names())}")
        return value

    @model_validator(mode="after")
    def _demands_need_checks(self) -> ChecksSection:
        if self.behaviour == "off" and self.demands:
            raise ValueError(f"'{self.demands[0]}' needs the checks: leave out 'behaviour: off'")
        return self

    @property
    def demands(self) -> tuple[str, ...]:
        """Which of the demands are made."""
        made = {"causal": self.causal, "max_exponent": self.max_exponent is not None, "forbid": self.forbid}
        return tuple(name for name, is_made in made.items() if is_made)


class MLflowSection(Section):
    """Where the population is recorded; None is SQLite beside the runs."""

    enabled: bool = True
    tracking_uri: str | None = None
