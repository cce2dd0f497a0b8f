"""The models of a run: which of them plays which role, behind one ledger.

The LLM arm, its repair turns and the analyst all ask here, so that budgets hold for them together and a
model that does not answer is left alone by all: each has one breaker, and nobody else needs to keep pauses.
Who asks looks at `ready` first, and tells afterwards what an answer was worth (`note_usable`,
`note_unusable`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, get_args

from cambrian.agents.errors import LimitReached, ModelUnavailable, RunFileError
from cambrian.agents.planner.breaker import Breaker, Say
from cambrian.agents.planner.client import LLMClient, ModelRequest
from cambrian.agents.planner.endpoint import Endpoint, resolve_endpoint
from cambrian.agents.planner.exchange import Exchange, ExchangeLog
from cambrian.agents.planner.limits import Limits
from cambrian.agents.planner.openai_client import OpenAIClient
from cambrian.agents.planner.prices import price_of, price_table
from cambrian.agents.planner.tempo import Tempo
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import LLMSection, ModelSection, PriceSection, Role
from cambrian.search_spaces import near_names


class Opening(Protocol):
    """A server of one's own that is started when it is first asked, and stopped with the run.

    Attributes:
        endpoint: what is known before it is started, the model's name above all.
    """

    endpoint: Endpoint

    async def open(self) -> Endpoint:
        """The server's endpoint; the first call starts it.

        Raises:
            ModelUnavailable: it cannot be started.
        """
        ...

    async def close(self) -> None:
        """Stop it. Safe to call twice."""
        ...


@dataclass(frozen=True)
class _Player:
    client: LLMClient
    breaker: Breaker
    problem: str = ""
    price: PriceSection | None = None


class Models:
    """Asks the model that plays a role.

    Args:
        config: `llm` and `budget` are used.
        exchanges: the run's record of what was asked and answered.
        client: answers in place of all models, whatever the run file names; None makes clients from the run
            file and the environment.
        say: told, in one line each, of models that are left alone and of those that are back.
        environ: see `resolve_endpoint`.
        local: serves `llm.local`; None makes one where the run file wants it.
        time_left: seconds until the run's time is up; nothing is waited for beyond it, and a model that
            is likely to answer later is not asked.
        clock: monotonic seconds, for the pauses of models that fail.

    Attributes:
        answered: told of every answer as it comes.
    """

    def __init__(
        self,
        config: RunConfig,
        exchanges: ExchangeLog,
        client: LLMClient | None = None,
        *,
        say: Say = lambda _line: None,
        environ: Mapping[str, str] | None = None,
        local: Opening | None = None,
        time_left: Callable[[], float] = lambda: math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.exchanges = exchanges
        self.answered: Callable[[Exchange], None] = lambda _exchange: None
        self._llm = config.llm
        self._limits = Limits(exchanges, config.budget, config.llm)
        self._replaced = client is not None
        self._local = None if self._replaced else local or _local(config.llm, environ)
        self._players: dict[str, _Player] = {}
        self._say = say
        self._tempo = Tempo(exchanges, config.budget.wall_s, time_left)
        self._told_dear: set[str] = set()

        def enter(name: str, client: LLMClient, problem: str = "", price: PriceSection | None = None) -> None:
            breaker = Breaker(name, config.llm.failures, config.llm.probe_s, partial(self._tell, name), clock)
            self._players[name] = _Player(client, breaker, problem, price)

        if client is not None:
            enter(client.model, client)
            return
        for section, endpoint in endpoints(config.llm, environ, self._local):
            served = self._local if section is None else None
            asking = OpenAIClient(
                config,
                exchanges,
                section=section,
                limits=self._limits,
                endpoint=endpoint,
                opening=None if served is None else served.open,
                time_left=time_left,
            )
            price = price_of(endpoint, (section or config.llm).price)
            enter(endpoint.model or "", asking, endpoint.problem, price)

    @property
    def names(self) -> tuple[str, ...]:
        """All that can be asked, the one that plays roles by default first."""
        return tuple(name for name, player in self._players.items() if not player.problem)

    def available(self, role: Role) -> tuple[str, ...]:
        """Those that may play `role` and would be asked now, the preferred one first."""
        return tuple(name for name in self.playing(role) if self._players[name].breaker.ready)

    def playing(self, role: Role) -> tuple[str, ...]:
        """Those that may play `role` by all limits, left alone for now or not, the preferred one first."""
        return tuple(name for name in self._cast(role) if self._out(role, name) is None)

    def ready(self, role: Role) -> bool:
        """Whether somebody plays `role` and may be asked now; whether it answers shows when it is asked.

        False without an endpoint, while the model is left alone because it failed, and when a limit of the
        role or of the run is spent.
        """
        return bool(self.available(role))

    def spent(self, role: Role) -> LimitReached | None:
        """Which limit keeps `role` from asking anybody anything more, None while none does."""
        if not self._replaced and (reached := self._limits.spent(role)) is not None:
            return reached
        found = [self._out(role, name) for name in self._cast(role)]
        reasons = [reached for reached in found if reached is not None]
        if not reasons or len(reasons) < len(found):
            return None
        return min(reasons, key=lambda reached: reached.needed)  # what the cheapest lacks

    def price(self, model: str) -> PriceSection | None:
        """What `model` costs; None where that is not known."""
        player = self._players.get(model)
        return player.price if player is not None else None

    async def ask(self, request: ModelRequest, model: str | None = None) -> Exchange:
        """The recorded exchange with the model that plays the request's role.

        Args:
            request: the question.
            model: one of `names`; None takes the role's own, or the first of those that are not left alone.

        Raises:
            ModelUnavailable: see `LLMClient.ask`; or it is left alone for now, and nothing was sent. The
                breaker has noted it and has told people: who catches this need not.
            LimitReached: see `LLMClient.ask`. One of a kind like `repair.calls` concerns that role only.
        """
        player = self._players[model] if model in self._players else self._player(request.role)
        if player.problem:  # it says itself what is missing, and nothing can be expected of trying again
            return await player.client.ask(request)
        probe = player.breaker.enter()
        try:
            exchange = await player.client.ask(request)
        except ModelUnavailable as error:
            player.breaker.failed(error, probe)
            raise
        except LimitReached as limit:
            player.breaker.dropped(probe)
            self._note_dear(request.role, player.client.model, limit)
            raise
        except BaseException:
            player.breaker.dropped(probe)
            raise
        player.breaker.answered(probe)
        self._tempo.note(exchange)
        self.answered(exchange)
        return exchange

    def note_usable(self, model: str) -> None:
        """Tell that an answer of `model` (an `Exchange.model`) could be used."""
        if model in self._players:
            self._players[model].breaker.usable()

    def note_unusable(self, model: str, why: str) -> None:
        """Tell that a question to `model` was given up, since no answer to it could be used.

        Once a question, not once a turn: a model that needs its repairs is of use. After `llm.failures` such
        in a row, without a `note_usable` between them, it is left alone for a while.
        """
        if model in self._players:
            self._players[model].breaker.unusable(why)

    def status(self) -> dict[str, str]:
        """One phrase for each model: `ready`, or why it is not asked."""
        return {
            name or "(no name)": f"no model endpoint: {player.problem}"
            if player.problem
            else player.breaker.status()
            for name, player in self._players.items()
        }

    async def close(self) -> None:
        """Close all clients. Safe to call twice."""
        for player in self._players.values():
            await player.client.close()
        if self._local is not None:
            await self._local.close()

    def _cast(self, role: Role) -> tuple[str, ...]:
        """Who may play `role`, the preferred one first."""
        own = self._llm.role(role).model
        if own is not None and not self._replaced:
            return (own,) if own in self.names else ()
        return self.names

    def _player(self, role: Role) -> _Player:
        return self._players[next(iter([*self.available(role), *self._cast(role), *self._players]))]

    def _out(self, role: Role, name: str) -> LimitReached | None:
        """Which limit keeps `role` from asking one model."""
        reached = None if self._replaced else self._limits.spent(role, name)
        return reached or self._tempo.late(name)

    def _note_dear(self, role: Role, name: str, limit: LimitReached) -> None:
        """Say once that a model is too dear for what is left, where another one is not."""
        others = self.playing(role)
        if self._limits.spent(role, name) is None or not others or name in {*others, *self._told_dear}:
            return
        self._told_dear.add(name)
        self._say(f"model {name} is too dear for what is left ({limit.message}); {_go_on(others)}")

    def _tell(self, name: str, line: str) -> None:
        """Say what a breaker says, and who goes on without its model."""
        others = [each for each in self.names if each != name and self._players[each].breaker.ready]
        is_down = not self._players[name].breaker.ready
        self._say(f"{line}; {_go_on(others)}" if is_down and others else line)


def _go_on(names: Sequence[str]) -> str:
    return f"{' and '.join(names)} go{'es' if len(names) == 1 else ''} on"


def endpoints(
    llm: LLMSection, environ: Mapping[str, str] | None = None, local: Opening | None = None
) -> Iterator[tuple[ModelSection | None, Endpoint]]:
    """All models that a run names, `llm.model` (None) first; one without a name only if there is no other.

    Args:
        llm: the run file's section.
        environ: see `resolve_endpoint`.
        local: serves `llm.local`.
    """
    first = resolve_endpoint(llm, environ) if local is None else local.endpoint
    named = {section.model for section in llm.models}
    # the environment may name what the run file lists: then the list says how it is asked
    if not named or (first.model is not None and first.model not in named):
        yield None, first
    order = sorted(llm.models, key=lambda section: section.model != first.model)
    for section in order:
        yield section, resolve_endpoint(llm, environ, section)


def _local(llm: LLMSection, environ: Mapping[str, str] | None) -> Opening | None:
    from cambrian.agents.planner.local_model import local_model

    return local_model(llm, environ)


def check_models(config: RunConfig, origin: str, environ: Mapping[str, str] | None = None) -> None:
    """What can be wrong with the models of a run before anything is asked.

    Args:
        config: the run.
        origin: what it came from, for messages.
        environ: see `resolve_endpoint`.

    Raises:
        UserError: there is no such local model.
        RunFileError: a role names a model that is not there, or money is limited and a price is not known.
    """
    found = list(endpoints(config.llm, environ, _local(config.llm, environ)))
    names = [endpoint.model for _, endpoint in found if endpoint.model is not None]
    for role in get_args(Role):
        name = config.llm.role(role).model
        if name is not None and name not in names:
            raise RunFileError(
                f"{origin}: llm.roles.{role}.model: unknown name {name!r}",
                hint=near_names(name, names) if names else "set llm.model, or list it under llm.models",
            )
    if not config.limits_money:
        return
    for section, endpoint in found:
        given = config.llm.price if section is None else section.price
        if endpoint.model is not None and price_of(endpoint, given) is None:
            field = "llm.price" if section is None else f"llm.models: {section.model}: price"
            raise RunFileError(
                f"{origin}: {field}: a limit of money needs the price of {endpoint.model!r} at "
                f"{endpoint.shown_url}, which the table of {price_table().as_of} does not hold",
                hint="write it as {input: ..., output: ...}, US dollars for a million tokens",
            )


def taken_for_free(config: RunConfig, environ: Mapping[str, str] | None = None) -> list[str]:
    """Models under a limit of money that cost nothing only as their server is near: it may be a proxy."""
    if not config.limits_money or config.llm.local is not None:
        return []
    found = []
    for section, endpoint in endpoints(config.llm, environ):
        price = price_of(endpoint, (section or config.llm).price)
        given = (section or config.llm).price is not None
        if not given and price is not None and not price.input + price.output and endpoint.model is not None:
            found.append(f"{endpoint.model} at {endpoint.shown_url}")
    return found
