"""What MLflow shows of one exchange with a model: a trace in chat form. No MLflow in here.

An exchange is one trace, and the turns about one proposal are one session: MLflow shows a session as a
conversation, and a trace that is complete when it is written needs no second visit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cambrian.agents.planner.exchange import Exchange
from cambrian.agents.planner.prices import paid_parts
from cambrian.agents.recorder.entries import TAG_CANDIDATE, TAG_ROLE, TAG_RUN
from cambrian.agents.sections import LLMSection
from cambrian.agents.wording import clean, one_line, unpictured

TAG_EXCHANGE = "cambrian.exchange"
TAG_PLACE = "cambrian.place"
LINKED_PROMPTS = "mlflow.linkedPrompts"
_MAX_TEXT = 200_000
_PREVIEW = 1000


@dataclass(frozen=True)
class PromptRef:
    """A version of a prompt in MLflow's registry; `number` as MLflow counts it."""

    name: str
    number: int

    @property
    def uri(self) -> str:
        """As MLflow writes it."""
        return f"prompts:/{self.name}/{self.number}"


@dataclass(frozen=True)
class TraceEntry:
    """One trace of one span.

    Attributes:
        trace_id: 32 hexadecimal digits; the same exchange of the same run has the same whoever delivers it.
        span_id: 16 of them.
        name: the role.
        start: seconds since the epoch.
        ok: whether there is an answer.
        problem: why there is none; may be empty.
        attributes: of the span, by MLflow's names.
    """

    trace_id: str
    span_id: str
    name: str
    start: float
    seconds: float
    ok: bool
    problem: str
    attributes: dict[str, Any]
    question: str
    answer: str
    session: str
    exchange: str
    tags: dict[str, str] = field(default_factory=dict)
    prompts: tuple[PromptRef, ...] = ()


def root_of(place: str) -> str:
    """`d12` of `d12.3`: what all turns about one thing share."""
    return place.partition(".")[0]


def is_settled(exchange: Exchange) -> bool:
    """Whether its record will not change any more while the process that asked is alive."""
    return exchange.response is not None or bool(exchange.refusal or exchange.error or exchange.finish)


def outcome(exchange: Exchange) -> str:
    """`answered`, or what became of it."""
    if exchange.refusal:
        return "refused"
    if exchange.error:
        return "failed"
    if exchange.response is None:
        return "no answer"
    return "cut off" if exchange.finish == "length" else "answered"


def trace_ids(parent_run_id: str, exchange_id: str) -> tuple[str, str]:
    """Ids of an exchange's trace and span.

    They follow from MLflow's run of the discovery run, so that a delivery that is repeated, by a process
    that knows nothing of the first try, writes over it instead of beside it.
    """
    digest = hashlib.sha256(f"{parent_run_id}/{exchange_id}".encode()).hexdigest()
    return digest[:32], digest[32:48]


def trace_entry(
    exchange: Exchange,
    run_id: str,
    parent_run_id: str,
    prompts: Mapping[tuple[str, str], PromptRef],
    llm: LLMSection,
) -> TraceEntry:
    """The trace of an exchange.

    Args:
        exchange: settled, or left by a process that died.
        run_id: of the discovery run.
        parent_run_id: MLflow's run of it.
        prompts: registered versions by template and version.
        llm: the run's section, which may hold the model's price.
    """
    trace_id, span_id = trace_ids(parent_run_id, exchange.id)
    became = outcome(exchange)
    usage = exchange.usage
    root = root_of(exchange.place)
    attributes: dict[str, Any] = {
        "mlflow.spanType": "CHAT_MODEL",
        "mlflow.message.format": "openai",
        "mlflow.llm.model": exchange.model,
        "mlflow.spanInputs": {
            "messages": [{"role": m.role, "content": _shown(m.content)} for m in exchange.messages],
        },
        "mlflow.spanOutputs": _answer(exchange),
        "mlflow.chat.tokenUsage": {
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "total_tokens": usage.tokens,
            **({"cache_read_input_tokens": usage.cached_tokens} if usage.cached_tokens else {}),
        },
        "outcome": became,
        "finish": exchange.finish,
        "calls": exchange.calls,
        "schema": exchange.schema_name or "none",
        "tokens_estimated": usage.estimated,
    }
    if exchange.money is not None:
        parts = paid_parts(exchange.money, usage, exchange.model, llm)
        told = {} if parts is None else {"input_cost": parts[0], "output_cost": parts[1]}
        attributes["mlflow.llm.cost"] = told | {"total_cost": exchange.money}
    refs = [prompts[key] for key in exchange.templates.items() if key in prompts]
    tags = {
        TAG_EXCHANGE: exchange.id,
        TAG_RUN: run_id,
        TAG_ROLE: exchange.role,
        TAG_PLACE: exchange.place,
        "model": exchange.model,
        "outcome": became,
        "calls": str(exchange.calls),
        TAG_CANDIDATE: root if root.startswith("c-") else "",
        **{f"template.{stem(name)}": version for name, version in exchange.templates.items()},
        **prompt_tags(refs),
    }
    asked = [m.content for m in exchange.messages if m.role == "user"]
    return TraceEntry(
        trace_id=trace_id,
        span_id=span_id,
        name=exchange.role,
        start=datetime.fromisoformat(exchange.created).timestamp(),
        seconds=exchange.seconds,
        ok=became in {"answered", "cut off"},
        problem=one_line(exchange.refusal or exchange.error or "", 1000),
        attributes=attributes,
        question=_gist(exchange.place, asked[-1] if asked else ""),
        answer=unpictured(
            one_line(exchange.response or exchange.refusal or exchange.error or became, _PREVIEW)
        ),
        session=f"{run_id}.{root}" if root else "",
        exchange=exchange.id,
        tags={key: value for key, value in tags.items() if value},
        prompts=tuple(refs),
    )


def prompt_tags(refs: list[PromptRef]) -> dict[str, str]:
    """Tags that link a run or a trace to versions of prompts: MLflow's own, and one to read and filter by."""
    if not refs:
        return {}
    linked = [{"name": ref.name, "version": str(ref.number)} for ref in refs]
    return {LINKED_PROMPTS: json.dumps(linked), "prompts": " ".join(ref.uri for ref in refs)}


def stem(template: str) -> str:
    """`propose` of `propose.j2`."""
    return template.removesuffix(".j2")


def _answer(exchange: Exchange) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": _shown(fenced(exchange.response or ""))}
    if exchange.refusal:
        message |= {"content": _shown(exchange.refusal), "refusal": _shown(exchange.refusal)}
    if exchange.error:
        return {"error": _shown(exchange.error)}
    if exchange.response is None and not exchange.refusal:
        return {"error": "no answer: the process ended while it waited"}
    return {
        "choices": [{"index": 0, "finish_reason": exchange.finish or "stop", "message": message}],
    }


def fenced(answer: str) -> str:
    """JSON as a block of code, which is what Markdown shows legibly; other answers as they are."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        return answer
    if not isinstance(told, dict | list):
        return answer
    return f"```json\n{json.dumps(told, indent=1, ensure_ascii=False)}\n```"


def _gist(place: str, question: str) -> str:
    """A question for lists: its place and its last section, as all questions begin alike."""
    section = question.rpartition("\n# ")[2] or question
    return unpictured(one_line(f"{place}: {section}" if place else section, _PREVIEW))


def _shown(text: str) -> str:
    return unpictured(clean(text, _MAX_TEXT))
