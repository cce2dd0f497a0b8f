"""The record of what was asked of a model, what it answered and what that cost.

Each exchange is one JSON file under `<run folder>/exchanges/`. A record is written before its first request
leaves and again when the answer is there, so that a killed process has not spent anything in secret, and
answers that were paid for are found again by a resumed run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cambrian.agents.errors import InfrastructureError

log = logging.getLogger(__name__)

DIED = "the process ended while it waited for the answer"
"""The error of a question whose process was killed."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Message(_Data):
    """One turn of a conversation with a model."""

    role: Literal["system", "user", "assistant"]
    content: str


class Usage(_Data):
    """Tokens of one exchange.

    Attributes:
        cached_tokens: those of the prompt that the server had in its cache.
        estimated: the server did not count all of them, so we did, at four characters a token.
        estimated_tokens: those that we counted.
    """

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    estimated: bool = False
    estimated_tokens: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _all_or_those_that_were_said(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("estimated") and "estimated_tokens" not in data:
            total = data.get("prompt_tokens", 0) + data.get("completion_tokens", 0)
            return data | {"estimated_tokens": total}
        return data

    @property
    def tokens(self) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            estimated=self.estimated or other.estimated,
            estimated_tokens=self.estimated_tokens + other.estimated_tokens,
        )


NO_USAGE = Usage()


@dataclass(frozen=True)
class Spent:
    """What some exchanges cost together.

    Attributes:
        calls: requests, retries included.
        usage: tokens; `estimated` when any of them are.
        money: US dollars, None when the price of some of the tokens is not known.
        known_money: of those whose price is known.
        seconds: of waiting for the answers; those of answers that were awaited together all count.
    """

    exchanges: int = 0
    calls: int = 0
    usage: Usage = NO_USAGE
    money: float | None = 0.0
    known_money: float = 0.0
    seconds: float = 0.0

    @classmethod
    def of(cls, exchange: Exchange) -> Spent:
        """What one exchange cost."""
        money = exchange.money if exchange.usage.tokens else 0.0
        return cls(
            exchanges=1,
            calls=exchange.calls,
            usage=exchange.usage,
            money=money,
            known_money=money or 0.0,
            seconds=exchange.seconds,
        )

    @property
    def tokens(self) -> int:
        """Prompt and answer tokens."""
        return self.usage.tokens

    def __add__(self, other: Spent) -> Spent:
        known = self.money is not None and other.money is not None
        return Spent(
            exchanges=self.exchanges + other.exchanges,
            calls=self.calls + other.calls,
            usage=self.usage + other.usage,
            money=(self.money or 0.0) + (other.money or 0.0) if known else None,
            known_money=self.known_money + other.known_money,
            seconds=self.seconds + other.seconds,
        )


class Exchange(_Data):
    """One question to a model and its answer.

    Attributes:
        id: `x-0001`, by order of asking; also the file's name.
        key: hash of model, messages and schema; equal keys are equal questions.
        role: what was asked for, such as `propose` or `repair`.
        place: of what in the run it is, such as `d12` for draw 12 or `c-0007` for a candidate's analysis, and
            `.2` for its second turn; by it a replay says which question has changed.
        money: US dollars by the model's price, None where that is not known.
        response: the answer's text, None when there is none.
        finish: why the answer ended, in the server's words (`stop`, `length`, ...).
        refusal: the model's words when it declined to answer.
        usage: of all its requests together: also of answers that could not be used, if the server counted
            them. A request that failed before the server told its tokens counts none; one that was given up,
            by a signal say, or that we did not live to hear, counts its prompt and a long answer, as an
            estimate.
        calls: requests that it took, retries included.
        seconds: from the first request to the answer, waits between retries included.
        error: why there is no answer; None when there is one, or while it is waited for.
        templates: version of each prompt template used, by name.
        created: UTC time of asking, ISO 8601.
    """

    id: str
    key: str
    role: str
    model: str
    messages: tuple[Message, ...]
    schema_name: str | None = None
    response: str | None = None
    finish: str = ""
    refusal: str = ""
    usage: Usage = Usage()
    place: str = ""
    money: float | None = Field(default=None, ge=0)
    calls: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    error: str | None = None
    templates: dict[str, str] = Field(default_factory=dict)
    created: str


def request_key(model: str, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> str:
    """Hash of everything that decides what is asked."""
    question = [model, [[message.role, message.content] for message in messages], schema]
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]


class ExchangeLog:
    """All exchanges of a run, and their totals over every process that worked on it.

    One process at a time, from one event loop: the run's lock sees to that.

    Args:
        run_folder: exchanges lie in its sub-folder `exchanges`, made with the first of them.

    Attributes:
        calls: requests so far, retries included.
        tokens: prompt and answer tokens so far.
        known_money: US dollars so far, of the exchanges whose price is known.

    Raises:
        InfrastructureError: the folder cannot be read.
    """

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder / "exchanges"
        self.calls = 0
        self.tokens = 0
        self.known_money = 0.0
        self._counted: dict[str, tuple[str, str, Spent]] = {}
        self._answered: dict[str, deque[str]] = defaultdict(deque)
        self._longest: dict[tuple[str, str], int] = {}
        self._open: list[str] = []
        self._last = 0
        try:
            paths = sorted(self.folder.glob("x-*.json")) if self.folder.is_dir() else []
            for path in paths:
                self._take_in(path)
        except OSError as error:
            raise InfrastructureError(f"cannot read {self.folder}: {error.strerror}") from error

    def __len__(self) -> int:
        """Exchanges so far, answered or not."""
        return len(self._counted)

    @property
    def money(self) -> float | None:
        """US dollars so far; None when some of it was spent on a model without a known price."""
        return self.total().money

    def total(self) -> Spent:
        """All exchanges together."""
        return sum((spent for _, _, spent in self._counted.values()), Spent())

    def by_model(self) -> dict[str, Spent]:
        """What each model cost; exchanges whose record is damaged stand under an empty name."""
        return self._totals(lambda model, role: model)

    def by_role(self) -> dict[str, Spent]:
        """What each role cost; exchanges whose record is damaged stand under an empty name."""
        return self._totals(lambda model, role: role)

    def _totals(self, name: Callable[[str, str], str]) -> dict[str, Spent]:
        found: dict[str, Spent] = defaultdict(Spent)
        for model, role, spent in self._counted.values():
            found[name(model, role)] += spent
        return dict(found)

    def get(self, exchange_id: str) -> Exchange:
        """The record.

        Raises:
            KeyError: there is none with this id.
            InfrastructureError: its file is gone or damaged.
        """
        if exchange_id not in self._counted:
            raise KeyError(exchange_id)
        try:
            return Exchange.model_validate_json(self._path(exchange_id).read_bytes())
        except (OSError, ValidationError) as error:
            raise InfrastructureError(f"exchange {exchange_id} cannot be read: {_cause(error)}") from error

    def all(self) -> list[Exchange]:
        """All records that can be read, by order of asking."""
        found = []
        for name in sorted(self._counted, key=lambda name: (len(name), name)):
            with contextlib.suppress(InfrastructureError):
                found.append(self.get(name))
        return found

    def recorded(self, key: str) -> Exchange | None:
        """An answer to the same question from an earlier process of this run, or None.

        Each is handed out once, in the order of asking: a run that asks the same thing twice gets, when it
        is replayed, the same two answers.
        """
        ids = self._answered.get(key)
        return self.get(ids.popleft()) if ids else None

    def longest_answer(self, model: str, role: str) -> int | None:
        """Tokens of the longest answer of `model` in `role`, None before the first."""
        return self._longest.get((model, role))

    def settle(self) -> None:
        """Note that nobody waits any more for what an earlier process of this run had asked: it is dead.

        For who goes on with the run; others may look at one whose process lives.

        Raises:
            InfrastructureError: see `write`.
        """
        for name in self._open:
            self.write(self.get(name).model_copy(update={"error": DIED}))
        self._open.clear()

    def begin(
        self,
        *,
        key: str,
        role: str,
        place: str = "",
        model: str,
        messages: Sequence[Message],
        schema_name: str | None,
        templates: Mapping[str, str],
    ) -> Exchange:
        """A new record with the next id, not written yet."""
        self._last += 1
        return Exchange(
            id=f"x-{self._last:04d}",
            key=key,
            role=role,
            place=place,
            model=model,
            messages=tuple(messages),
            schema_name=schema_name,
            templates=dict(templates),
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )

    def write(self, exchange: Exchange, if_killed: Exchange | None = None) -> None:
        """Write a record whole, or not at all, over an earlier state of itself, and count it.

        Args:
            exchange: as it is now.
            if_killed: what the next process is to find should this one write no more; None for `exchange`.

        Raises:
            InfrastructureError: the disk is full or the folder cannot be written.
        """
        self._count(exchange)
        path = self._path(exchange.id)
        draft = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with draft.open("w", encoding="utf-8") as file:
                file.write((if_killed or exchange).model_dump_json(indent=1))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            raise InfrastructureError(
                f"cannot write {path}: {error.strerror}", hint="free space on that disk, then resume the run"
            ) from error

    def _take_in(self, path: Path) -> None:
        number = path.stem.removeprefix("x-")
        if number.isdigit():
            self._last = max(self._last, int(number))
        try:
            exchange = Exchange.model_validate_json(path.read_bytes())
        except ValidationError as error:
            log.warning("exchange %s is damaged and left out: %s", path.name, _cause(error))
            self._enter(path.stem, "", "", Spent(exchanges=1, calls=1))
            return
        self._count(exchange)
        if exchange.response is not None:
            self._answered[exchange.key].append(exchange.id)
        elif exchange.error is None:
            self._open.append(exchange.id)

    def _count(self, exchange: Exchange) -> None:
        self._enter(exchange.id, exchange.model, exchange.role, Spent.of(exchange))
        if exchange.response is not None:
            of = exchange.model, exchange.role
            self._longest[of] = max(self._longest.get(of, 0), exchange.usage.completion_tokens)

    def _enter(self, exchange_id: str, model: str, role: str, spent: Spent) -> None:
        _, _, before = self._counted.get(exchange_id, ("", "", Spent()))
        self.calls += spent.calls - before.calls
        self.tokens += spent.tokens - before.tokens
        self.known_money += spent.known_money - before.known_money
        self._counted[exchange_id] = (model, role, spent)

    def _path(self, exchange_id: str) -> Path:
        return self.folder / f"{exchange_id}.json"


def _cause(error: OSError | ValidationError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": ")
    return error.strerror or str(error)
