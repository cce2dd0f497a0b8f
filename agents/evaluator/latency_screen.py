"""Who is not even measured: candidates whose predicted latency lies far outside the run's hard limit."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.encoding import LIVE, Encoder, Encoding
from cambrian.agents.evaluator.latency_devices import Table, known_devices
from cambrian.agents.evaluator.latency_model import MIN_SAMPLES, LatencyError, LatencyModel, error_of
from cambrian.agents.population.model import Candidate, Evaluation
from cambrian.agents.sections import Constraint, PredictorSection
from cambrian.agents.wording import show_number
from cambrian.sandbox import JobState
from cambrian.search_spaces import Space

MOST_SAMPLES = 100
"""Measurements that the model is fitted on, the newest."""
MIN_FORETOLD = 5
"""Predictions made before measuring from which their error may take the trust away again."""
BELIED = 2.0
"""... once it is so many times the error that would have been small enough."""
LOOK_BACK = 20
"""The newest predictions, by which their error is judged."""
GROWTH = 1.2
"""The model is fitted anew when the number of measurements has grown by about this factor."""


SIZES = ("log_", "depth", "blocks", "params.", "channels.", "downsampling", LIVE)
"""How features begin that tell how large a network is."""


class LatencyVerdict(BaseModel):
    """What the latency model says of one candidate before it is measured.

    Attributes:
        predicted: in the limit's unit; None while there is no model.
        keep: False only when the model is trusted and sees the candidate far outside the limit.
        reason: one line, for people and for the planner; empty when the candidate is kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    predicted: float | None = None
    keep: bool = True
    reason: str = ""


@dataclass(frozen=True)
class _Measured:
    device: str
    encoding: Encoding
    value: float
    foretold: float | None


def latency_limit(constraints: Iterable[Constraint]) -> Constraint | None:
    """The first hard ceiling on latency; None when there is none, or only one on throughput."""
    return next((c for c in constraints if c.name in ("latency_ms", "latency_ratio") and c.op == "<="), None)


class LatencyEncoder:
    """How the candidates of a space look to a latency model: by their sizes, and by motifs.

    Genes are left out where a space tells sizes: few samples cannot tell which of a hundred numbers time
    depends on. Of generated code the static facts and the motifs are known that its examination found.

    Args:
        space: of the run.
    """

    def __init__(self, space: Space) -> None:
        self._space, self._encoder = space, Encoder(space)

    def __call__(self, candidate: Candidate) -> Encoding:
        """A candidate, as far as it is known before it is measured; the same numbers for all of a space."""
        known = self._encoder(candidate.genotype, motifs=candidate.motifs or None)
        sizes = _sizes(known)
        if sizes:
            return Encoding(sizes, known.motifs)
        facts = candidate.static
        told = (facts.parameters, facts.flops, facts.depth) if facts is not None else (0, 0, 0)
        numbers = dict(known.numbers)
        for name, size in zip(("params", "flops", "depth"), told, strict=True):
            numbers |= {name: float(size), f"log_{name}": math.log10(1 + size)}
        return Encoding(numbers, known.motifs)

    def reference(self, members: int = 64) -> list[Encoding]:
        """Random members, which show how far sizes may vary; none of a space that does not tell sizes.

        The measured candidates of a search are alike: what hardly varies among them may vary much elsewhere.
        """
        rng = random.Random(0)
        drawn = (self._encoder(self._space.validate(self._space.sample(rng))) for _ in range(members))
        found = [Encoding(_sizes(known), known.motifs) for known in drawn if _sizes(known)]
        return found


def _sizes(known: Encoding) -> dict[str, float]:
    """Sizes among the features, those that are logarithms as they are too: for time in proportion to them."""
    named = {key: value for key, value in known.numbers.items() if key.startswith(SIZES)}
    plain = {key.replace("log_", ""): 10**value - 1 for key, value in named.items() if "log_" in key}
    return named | plain


class LatencyScreen:
    """Watches the run's latency measurements, and speaks up once its cross-validated error is small enough.

    It does nothing in a run without a hard ceiling on latency. Every decision is a function of the ordered
    list of what was observed: a resumed run that shows it the same list gets the same decisions. Measurements
    are of one device, that of the newest one; those of another, from before a run moved, serve as another
    device's. Control arms must not be screened, which is the caller's to see to. Threads may share it.

    Args:
        config: of the run's predictors; `enabled` holds for this one as well.
        constraints: the run's hard limits.
        encode: what is known of a candidate before it is measured.
        earlier: what earlier runs measured, wherever that was; it counts as other devices' even where it was
            on this one, since other work may have run beside it.
    """

    def __init__(
        self,
        config: PredictorSection,
        constraints: Iterable[Constraint],
        encode: LatencyEncoder,
        *,
        earlier: Iterable[tuple[Candidate, Evaluation]] = (),
    ) -> None:
        self._limit = latency_limit(constraints) if config.enabled else None
        self._encode, self._earlier = encode, tuple(earlier)
        self._tables: dict[str, Table] | None = None
        self._lock = threading.Lock()
        self._reference: list[Encoding] | None = None
        self._forget()

    def rebuild(self, measured: Iterable[tuple[Candidate, Evaluation]]) -> None:
        """Forget everything, then observe all in order."""
        with self._lock:
            self._forget()
        for candidate, evaluation in measured:
            self.observe(candidate, evaluation)

    def observe(self, candidate: Candidate, evaluation: Evaluation) -> None:
        """Learn what was measured of a candidate, once; nothing where nothing was, or it is not believed.

        Args:
            candidate: with `predicted_latency` as `verdict` gave it.
            evaluation: of it.
        """
        with self._lock:
            if candidate.id not in self._seen and (found := self._read(candidate, evaluation)) is not None:
                self._seen.add(candidate.id)
                self._measured.append(found)

    def verdict(self, candidate: Candidate) -> LatencyVerdict:
        """Whether the candidate is worth a measurement.

        It is dropped when even the lower bound of its latency is beyond the limit.
        """
        limit = self._limit
        with self._lock:
            model = self._fitted()
            if limit is None or model is None:
                return LatencyVerdict()
            means, stds = model.predict([self._encode(candidate)])
            running = self._running()
            bounds = model.lower_bounds(means, stds, running.rms if running is not None else 0.0)
            mean, std, bound = (float(each[0]) for each in (means, stds, bounds))
            if limit.holds(bound) or not self._trusted(model):
                return LatencyVerdict(predicted=mean)
            said = (
                f"predicted {_named(limit, mean)} ± {show_number(std, 2)} on {self._measured[-1].device}; "
                f"even the lower bound {show_number(bound)} is beyond the limit {limit} "
                f"(the model's error on held-out measurements: {model.error})"
            )
            return LatencyVerdict(predicted=mean, keep=False, reason=said)

    @property
    def trusted(self) -> bool:
        """Whether it may end candidates now."""
        with self._lock:
            model = self._fitted()
            return model is not None and self._trusted(model)

    def describe(self) -> str:
        """Its error in one line; empty while it has seen too little, or is not needed."""
        with self._lock:
            model = self._fitted()
            if model is None or model.error is None:
                return ""
            said = f"latency: {model.error} on {model.error.samples} held-out measurements"
            running = self._running()
            if running is not None:
                said += f", {running} on the last {running.samples} candidates it had not seen"
            return said + ("" if self._trusted(model) else "; it only watched")

    # -- inside, with the lock held -----------------------------------------------------------------

    def _read(self, candidate: Candidate, evaluation: Evaluation) -> _Measured | None:
        """What was measured, in the limit's unit; None where nothing was, or it is not believed."""
        latency = evaluation.latency
        if self._limit is None or latency is None or evaluation.state == JobState.NOT_REPRODUCED:
            return None
        value = latency.median_ms if self._limit.name == "latency_ms" else latency.ratio
        if value is None or not value > 0:
            return None
        where = evaluation.device_name or latency.device
        device = f"{where}, {latency.threads} threads, batch {latency.batch}"
        return _Measured(device, self._encode(candidate), value, candidate.predicted_latency)

    def _earlier_tables(self) -> dict[str, Table]:
        """What earlier runs measured, by device."""
        if self._tables is None:
            by_device: dict[str, list[_Measured]] = {}
            for candidate, evaluation in self._earlier:
                if (found := self._read(candidate, evaluation)) is not None:
                    by_device.setdefault(found.device, []).append(found)
            self._tables = {
                f"earlier runs on {device}": ([m.encoding for m in all_], [m.value for m in all_])
                for device, all_ in by_device.items()
            }
        return self._tables

    def _forget(self) -> None:
        self._measured: list[_Measured] = []
        self._seen: set[str] = set()
        self._model: LatencyModel | None = None
        self._fitted_to: tuple[str, int] = ("", 0)

    def _running(self) -> LatencyError | None:
        pairs = [(m.foretold, m.value) for m in self._measured if m.foretold is not None]
        return running_error(pairs[-LOOK_BACK:])

    def _trusted(self, model: LatencyModel) -> bool:
        """The error must be small in cross-validation, and not be belied by what was measured since."""
        running = self._running()
        many = running is not None and running.samples >= MIN_FORETOLD
        belied = many and running is not None and running.mape > BELIED * model.max_mape
        return model.trusted and not belied

    def _fitted(self) -> LatencyModel | None:
        """The model on the device of the newest measurement, fitted when enough new ones are there.

        The fit takes the first measurements up to a count that is due: so it does not matter when somebody
        asks, and a resumed run fits once instead of replaying every fit.
        """
        if self._limit is None or not self._measured:
            return None
        device = self._measured[-1].device
        own = [m for m in self._measured if m.device == device]
        due = due_count(len(own))
        if not due:
            return None
        if self._reference is None:
            self._reference = self._encode.reference()
        if self._model is None or self._fitted_to != (device, due):
            tables = dict(self._earlier_tables())
            for other in dict.fromkeys(m.device for m in self._measured if m.device != device):
                theirs = [m for m in self._measured if m.device == other]
                tables[f"this run on {other}"] = ([m.encoding for m in theirs], [m.value for m in theirs])
            own = own[:due][-MOST_SAMPLES:]
            reference = self._reference or [m.encoding for m in own]
            model = LatencyModel(known_devices(tables, reference), reference=reference)
            model.fit([m.encoding for m in own], [m.value for m in own])
            self._model, self._fitted_to = model, (device, due)
        return self._model


def due_count(measured: int) -> int:
    """The number of measurements that the model is fitted on when there are so many; 0 is no model."""
    if measured < MIN_SAMPLES:
        return 0
    count = MIN_SAMPLES
    while (following := int(count * GROWTH) + 3) <= measured:
        count = following
    return count


def running_error(pairs: Sequence[tuple[float, float]]) -> LatencyError | None:
    """The error of predictions made before measuring, as (predicted, measured); None below two."""
    if len(pairs) < 2:
        return None
    predicted, measured = (np.asarray(values, dtype=np.float64) for values in zip(*pairs, strict=True))
    return error_of(predicted, np.ones_like(predicted), measured)


def _named(limit: Constraint, value: float) -> str:
    """`3.1 ms`, or `3.1 times the latency of the reference network`."""
    said = show_number(value)
    return f"{said} ms" if limit.name == "latency_ms" else f"{said} times the reference's latency"
