"""What a model server does wrong, and a whole run with such a server behind it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.runfile import parse_config
from cambrian.agents.session import Watch, start
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import SPACES
from tests.agents.planner.server import (
    Handler,
    ModelServer,
    answer,
    cut,
    error,
    flood,
    model_server,
    raw,
    trickle,
)

Response = Callable[[Handler], None]
TIMEOUT_S = 20.0
"""Long enough for a busy machine: an answer that comes later is in the server's log only."""
STALLED_S = 1.0
"""The same for servers that never end an answer."""
SPACE = "convnet"


def well(handler: Handler) -> None:
    """What a good model says to the question, by schema or in words."""
    answer(_good(handler))(handler)


def _good(handler: Handler) -> str:
    asked = json.dumps(handler.seen.body)
    if "by_percent" not in asked:
        notes: dict[str, list[str]] = {"supports": [], "contradicts": [], "new": []}
        text = json.dumps({"lesson": "width helped, as far as one result tells", "notes": notes})
    else:
        space = SPACES.create(SPACE)
        schema = (handler.seen.schema or {}).get("properties", {})
        made = [
            {
                "hypothesis": "wider is better",
                "expectation": {"measure": "score", "change": "higher", "by_percent": 1},
                "parents": [],
                "edit": "wider",
                "genotype": space.sample(random.Random(f"{handler.number}/{n}")),
            }
            for n in range(3 if "proposals" in schema else 1)
        ]
        text = json.dumps({"proposals": made} if "proposals" in schema else made[0])
    return text if handler.seen.schema is not None else f"Here it is.\n```json\n{text}\n```"


def _lying(**wrong: object) -> Response:
    """A good answer whose usage is made up, so that it counts for nothing in the server's log either."""

    def respond(handler: Handler) -> None:
        def lie(body: dict[str, Any]) -> None:
            said: dict[str, int] = body["usage"]
            handler.world.count(-said["total_tokens"])
            body["usage"] = {name: wrong.get(name.partition("_")[0], wrong["all"]) for name in said}

        answer(_good(handler), spoilt=lie)(handler)

    return respond


def _damaged(handler: Handler) -> None:
    """Bytes that are no UTF-8, halves of pairs and a null, within a good answer's text or beside it."""
    rng = random.Random(handler.number)

    def damage(body: dict[str, Any]) -> bytes:
        text = json.dumps(body).encode()
        place = text.find(b"wider") if handler.number % 3 else 2
        wrong = rng.choice([b"\xff\xfe", b"\\ud83d", b"\xc3", b"\\u0000", b"\xed\xa0\x80"])
        return text[:place] + wrong + text[place:]

    answer(_good(handler), spoilt=damage)(handler)


def _no_schemas(handler: Handler) -> None:
    """A server that cannot be given a schema, and else answers well."""
    if handler.seen.schema is not None:
        error(400, "response_format: json_schema is not supported here")(handler)
    else:
        well(handler)


def _no_choices(body: dict[str, Any]) -> None:
    body.update(choices=[], output=[])


def _shapeless(body: dict[str, Any]) -> None:
    body.update(choices={"first": 1}, output="text")


FAULTS: Mapping[str, Response] = {
    "none": well,
    "429": error(429, "slow down"),
    "429, Retry-After 1 s": error(429, "slow down", headers={"Retry-After": "1"}),
    "429, Retry-After 2 min": error(429, "slow down", headers={"Retry-After": "120"}),
    "429, quota gone": error(429, "pay first", "insufficient_quota"),
    "401, key refused": error(401, "who are you?", "invalid_api_key"),
    "404, no such model": error(404, "no such model", "model_not_found"),
    "500": error(500, "out of order"),
    "500 that was paid for": answer("half an answer", status=500),
    "connection cut": cut,
    "slow drip": trickle,
    "no API": raw(b"<html>welcome to nginx</html>", "text/html"),
    "wrong JSON": raw(b'{"choices": [{"message": {"content": "{\\"hypo'),
    "wrong shape": answer("{}", spoilt=_shapeless),
    "no choices": answer("{}", spoilt=_no_choices),
    "answer no JSON": answer("I would make it wider."),
    "answer of another schema": answer('{"name": "resnet", "layers": 18}'),
    "answer no member": answer('{"hypothesis": "h", "edit": "e", "genotype": {"stem": "huge"}}'),
    "answer empty": answer(""),
    "answer cut at its length": answer('{"hypothesis": "wider', finish="length"),
    "answer of 1 MB": answer("wide " * 200_000),
    "body of 64 MB": flood,
    "refusal": answer(None, refusal="I cannot help with that."),
    "unicode damage": _damaged,
    "usage negative": _lying(all=-7),
    "usage absurd": _lying(all=10**15),
    "usage in words": _lying(all="many"),
    "usage of another total": _lying(prompt=50, completion=20, input=50, output=20, all=5000),
    "no schemas": _no_schemas,
}


@dataclass(frozen=True)
class Endured:
    """How a run fared.

    Attributes:
        evaluations: made.
        budget: to be made.
        by_model: candidates of the model that were evaluated.
        calls: by our ledger.
        server_calls: by the server's own log.
        tokens: by our ledger, those that we estimated since the server did not tell left out.
        server_tokens: by the server's own log.
        estimated: tokens of exchanges in which some were estimated.
        lines: what people were told.
    """

    evaluations: int
    budget: int
    by_model: int
    calls: int
    server_calls: int
    tokens: int
    server_tokens: int
    estimated: int
    seconds: float
    lines: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether our ledger is the server's log."""
        return (self.calls, self.tokens) == (self.server_calls, self.server_tokens)


def mixed(*faults: Response, good: int = 1) -> Response:
    """`good` good answers between each two faults, which come in turn."""

    def respond(handler: Handler) -> None:
        turn, rest = divmod(handler.number - 1, good + 1)
        (well if rest < good else faults[turn % len(faults)])(handler)

    return respond


def timeout_s(fault: str) -> float:
    """How long to wait for an answer of a server with `fault`."""
    return STALLED_S if fault == "slow drip" else TIMEOUT_S


async def endure(response: Response, folder: Path, evaluations: int, **llm: Any) -> Endured:
    """A run of the sandbox kind `instant` with an LLM arm of half the budget and the analyst.

    Args:
        response: of the server, to everything.
        folder: for the run.
        evaluations: the budget.
        llm: further settings of the model.
    """
    with model_server() as server:
        server.says(response)
        settings = {
            "name": "faults",
            "space": SPACE,
            "task": {"name": "digits", "rungs": [{"epochs": 1}]},
            "slots": 2,
            "cost": "params",
            "budget": {"evaluations": evaluations},
            "warmup": 2,
            "arms": {"random": 0.3, "mutation": 0.2, "llm": 0.5},
            "sandbox": {"kind": "instant"},
            "mlflow": {"enabled": False},
            "llm": _llm(server) | llm,
        }
        lines: list[str] = []
        started = time.monotonic()
        report = await start(
            parse_config(settings, "benchmark"), Workspace(folder), Watch(say=lines.append), "benchmark"
        )
        seconds = time.monotonic() - started
        log = ExchangeLog(folder / report.run_id)
        estimated = sum(each.usage.estimated_tokens for each in log.all())
        ledger = report.ledger
        return Endured(
            evaluations=ledger.evaluations,
            budget=evaluations,
            by_model=sum(arm.evaluated for arm in report.arms if arm.arm == "llm"),
            calls=ledger.calls,
            server_calls=len(server.seen),
            tokens=ledger.tokens - estimated,
            server_tokens=server.tokens,
            estimated=estimated,
            seconds=seconds,
            lines=tuple(lines),
        )


def _llm(server: ModelServer) -> dict[str, Any]:
    return {
        "model": "test-model",
        "base_url": server.url,
        "timeout_s": TIMEOUT_S,
        "retries": 1,
        "repairs": 1,
        "failures": 3,
        "probe_s": 0.5,
        "required": False,
    }
