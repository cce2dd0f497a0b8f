"""How numbers and foreign text are written for people: the same in MLflow, pictures and prompts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from cambrian.agents.population.model import Nearest
from cambrian.sandbox import Isolation, Latency
from cambrian.sandbox.examination.report import Finding
from cambrian.search_spaces.recipes import split

RATIO_METRICS = ("accuracy", "precision", "recall", "f1", "auc")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def is_ratio(metric: str) -> bool:
    """Whether values of `metric` lie between 0 and 1 and read best as a percentage."""
    return any(metric == name or metric.endswith(f"_{name}") for name in RATIO_METRICS)


def show_number(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """`0.123`, `7.5`, `1,140`: so many digits, or all that are before the point."""
    plus = "+" if sign else ""
    if abs(value) >= 10**digits - 0.5:
        return f"{value:{plus},.0f}"
    return f"{value:{plus}.{digits}g}"


def plural(n: int, word: str) -> str:
    """`1 proposal`, `3 proposals`."""
    return f"{n} {word}" + ("" if n == 1 else "s")


def show_percent(percent: float, digits: int = 3) -> str:
    """`0.9 %`, `110 %`, `1,140 %`."""
    return f"{show_number(percent, digits)} %"


def show_change(percent: float) -> str:
    """A relative change: `+1.1 %`, `-56.7 %`, `+250 %`; `12.4 times as much` from ten times on."""
    if percent >= 900:
        return f"{show_number(1 + percent / 100)} times as much"
    return f"{show_number(percent, sign=True)} %"


def show_score(metric: str, value: float | None) -> str:
    """`97.13 %` for ratios, as the terminal shows them, else four digits; `-` for None."""
    if value is None:
        return "-"
    if not is_ratio(metric):
        return show_number(value, 4)
    return f"{100 * value:.2f} %"


def show_count(value: float | None) -> str:
    """`950`, `23.4k`, `1.2M`; `-` for None."""
    if value is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{show_number(value / size)}{unit}"
    return f"{value:.0f}"


def show_cost(cost: str, value: float | None) -> str:
    """A value of a cost objective with its unit; `-` for None."""
    if value is None:
        return "-"
    if cost.endswith("_ms"):
        return f"{show_number(value)} ms"
    if cost.endswith("_ratio"):
        return f"{value:.3g}x"
    return f"{show_number(value)} MiB" if cost.endswith("_mb") else show_count(value)


COST_TITLES: Mapping[str, str] = {
    "latency_ms": "latency of one call (ms, median)",
    "latency_ratio": "latency by that of the reference network",
    "params": "parameters",
    "flops": "FLOPs of one sample",
    "memory_mb": "memory of one training step (MiB)",
}


def clean(text: str, limit: int = 2000) -> str:
    """Foreign text made harmless to store and show: no control or invisible characters, a bounded length.

    Newlines stay, at most two in a row; tabs become spaces.
    """
    kept = "".join(
        ch if ch == "\n" or unicodedata.category(ch)[0] != "C" else " " if ch == "\t" else ""
        for ch in text.replace("\r\n", "\n").replace("\r", "\n")
    )
    kept = re.sub(r"\n{3,}", "\n\n", kept).strip()
    return kept if len(kept) <= limit else kept[: limit - 1].rstrip() + "…"


def one_line(text: str, limit: int = 200) -> str:
    """`clean`, on one line."""
    return clean(" ".join(clean(text, 4 * limit).split()), limit)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: a model's words can bring no link, picture, heading or HTML.

    Pictures matter most: one in a description would be fetched by every reader's browser. Of the two ways to
    escape, each character gets the one that MLflow's renderer understands as well as CommonMark.
    """
    text = re.sub(r"[&<>]", lambda found: _ENTITIES[found[0]], text)
    return re.sub(r"([\\`*_{}\[\]()#|!~])", r"\\\1", text).replace("://", "&#58;//")


def unpictured(text: str) -> str:
    """Markdown whose pictures are shown as text: every reader's browser would fetch them."""
    return text.replace("![", "!\\[")


def compact(value: Any) -> str:
    """A gene's value on one line: `kernel=3 width=16` for mappings, words for lists."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={compact(below)}" for key, below in value.items())
    if isinstance(value, list | tuple):
        return ",".join(compact(below) for below in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def flatten_genes(genotype: Mapping[str, Any]) -> dict[str, str]:
    """A genotype as few short lines: a scalar gene is one, each element of a list of objects is one.

    Genotypes with a recipe show it beside the architecture's genes as `recipe.learning_rate` and so on.
    Long texts (the source of a code space) are left out; they are artifacts of their own.
    """
    if (parts := split(genotype)) is not None:
        return flatten_genes(parts[0]) | {f"recipe.{k}": compact(v) for k, v in parts[1].items()}
    found: dict[str, str] = {}
    for key, value in genotype.items():
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            found.update({f"{key}.{i}": compact(item) for i, item in enumerate(value, start=1)})
        else:
            found[key] = compact(value)
    return {key: text for key, text in found.items() if len(text) <= 500 and "\n" not in text}


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as dotted keys; lists become text."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found.update(flatten_config(value, f"{name}."))
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            found[name] = "; ".join(compact(item) for item in value)
        else:
            found[name] = "none" if value is None or value == {} else compact(value)
    return found


def show_reproduced(reproduced: bool | None) -> str:
    """Whether predictions came out of their weights again; empty while nobody has tried."""
    return "" if reproduced is None else "yes" if reproduced else "no"


def show_nearest(nearest: Nearest) -> str:
    """`c-0007, similarity 0.94: stem.width 16 -> 24`; how alike both predict where that is known."""
    said = f"{nearest.id}, similarity {nearest.similarity:.2f}"
    if nearest.agreement is not None:
        said += f", predictions alike {nearest.agreement:.2f}"
    return said + (f": {nearest.difference}" if nearest.difference else "")


def show_isolation(isolation: Isolation) -> str:
    """The level of an isolation, and what it does not stop."""
    gaps = f", which does not stop: {'; '.join(isolation.not_enforced)}" if isolation.not_enforced else ""
    return isolation.level + gaps


def latency_facts(latency: Latency, device_name: str = "") -> list[tuple[str, str]]:
    """All that a measurement tells, title by title.

    Args:
        latency: what was measured.
        device_name: what the run file calls the device; empty where it has no name.
    """
    place = f"{device_name} ({latency.place})" if device_name else latency.place
    said = f"{show_number(latency.median_ms)} ms"
    if latency.repeats > 1:
        said += f" (quartiles {show_number(latency.q1_ms)} to {show_number(latency.q3_ms)}"
        said += f" of {latency.repeats} blocks, batch {latency.batch})"
    said += f" on {place}"
    if latency.noisy:
        said += "; noisy: its spread stayed wide"
    if latency.repeats > 1 and not latency.alone:
        said += "; not alone on its cores"
    facts = [("latency", said)]
    if latency.ratio is not None:
        by = f" ({show_number(latency.reference_ms)} ms)" if latency.reference_ms is not None else ""
        facts.append(("latency ratio", f"{latency.ratio:.3g} times that of {latency.reference}{by}"))
    if latency.throughput is not None:
        batch = f" in batches of {latency.throughput_batch}" if latency.throughput_batch else ""
        facts.append(("throughput", f"{show_count(latency.throughput)} samples/s{batch}"))
    if latency.memory_mb is not None:
        facts.append(("memory of a call", show_cost("memory_mb", latency.memory_mb)))
    return facts


def finding_facts(findings: Sequence[Finding], proxies: Mapping[str, float]) -> list[tuple[str, str]]:
    """What an examination found, title by title: what passed in one line, the rest with what was measured."""
    facts = [(f"check {f.check}", f"{f.verdict}: {f.detail}") for f in findings if f.verdict != "passed"]
    if passed := [f.check for f in findings if f.verdict == "passed"]:
        facts.append(("checks passed", ", ".join(passed)))
    facts += [
        (f"measured {f.check}", f.detail) for f in findings if f.check == "growth" and f.verdict == "passed"
    ]
    if proxies:
        facts.append(("proxies", ", ".join(f"{name} {value:.4g}" for name, value in sorted(proxies.items()))))
    return facts
