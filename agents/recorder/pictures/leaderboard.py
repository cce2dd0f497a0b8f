"""The leaderboard: as a picture, as Markdown and as one HTML page with the architectures drawn."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from cambrian.agents.population.model import Candidate
from cambrian.agents.recorder.pictures import style
from cambrian.agents.recorder.pictures.scene import BASELINE_ARM, CONTROL_ARM, Scene
from cambrian.agents.recorder.wording import escape_markdown, one_line, show_cost, show_count, show_score


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard; `rank` is empty for those shown for comparison only."""

    rank: str
    candidate: Candidate
    name: str
    on_front: bool


def rows(scene: Scene, n: int = 12) -> list[Row]:
    """The best `n`, then the best of the control arm and the baselines where these are not among them."""
    front = {c.id for c in scene.front}
    ranks = {c.id: str(rank) for rank, c in enumerate(scene.ranking, start=1)}
    chosen = list(scene.ranking[:n])
    control = scene.best_of(CONTROL_ARM)
    for candidate in [control, *(c for c in scene.scored if c.proposal.arm == BASELINE_ARM)]:
        if candidate is not None and candidate not in chosen:
            chosen.append(candidate)
    return [Row(ranks.get(c.id, "-"), c, _name(scene, c), c.id in front) for c in chosen]


def markdown(scene: Scene, n: int = 12, links: Mapping[str, str] | None = None) -> str:
    """The leaderboard as a Markdown table; `links` lead from ids to pages."""
    found = rows(scene, n)
    if not found:
        return ""
    metric = scene.run.metric
    lines = [
        f"| # | candidate | arm | {metric} | test | latency | parameters | architecture |",
        "|---:|---|---|---:|---:|---:|---:|---|",
    ]
    for row in found:
        c = row.candidate
        name = f"[{c.id}]({links[c.id]})" if links and c.id in links else c.id
        score = show_score(metric, c.score)
        parameters = c.static.parameters if c.static is not None else None
        cells = [
            row.rank,
            f"{name}{' ◆' if row.on_front else ''}",
            c.proposal.arm,
            f"**{score}**" if row.rank == "1" else score,
            show_score(metric, c.test_score),
            show_cost("latency_ms", c.latency_ms),
            show_count(parameters),
            escape_markdown(row.name),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "◆ on the Pareto front; - breaks a limit"]) + "\n"


def page(scene: Scene, drawings: Mapping[str, str], n: int = 12) -> str:
    """The leaderboard as HTML that loads nothing; `drawings` are SVGs by candidate id.

    Drawings are embedded as images, in which a browser runs no script.
    """
    metric = scene.run.metric
    body = []
    for row in rows(scene, n):
        c = row.candidate
        svg = drawings.get(c.id)
        image = ""
        if svg is not None:
            data = base64.b64encode(svg.encode()).decode()
            image = f'<img alt="architecture of {c.id}" src="data:image/svg+xml;base64,{data}">'
        parameters = c.static.parameters if c.static is not None else None
        body.append(
            f"<tr><td class=n>{row.rank}</td><td><b>{c.id}</b>{' ◆' if row.on_front else ''}<br>"
            f'<span class=arm style="background:{style.arm_colour(c.proposal.arm)}">'
            f"{html.escape(c.proposal.arm)}</span></td>"
            f"<td class=n><b>{show_score(metric, c.score)}</b><br><small>test "
            f"{show_score(metric, c.test_score)}</small></td>"
            f"<td class=n>{show_cost('latency_ms', c.latency_ms)}<br><small>{show_count(parameters)} "
            f"parameters</small></td><td>{html.escape(row.name)}{image}</td></tr>"
        )
    title = html.escape(f"Leaderboard of {scene.run.run_id}")
    return _PAGE.format(title=title, metric=html.escape(metric), rows="\n".join(body))


def leaderboard(scene: Scene, n: int = 12) -> Figure:
    """The leaderboard as a picture, with a bar for each score."""
    found = rows(scene, n)
    height = 1.25 + 0.36 * max(len(found), 4)
    figure = Figure(figsize=(11.0, height))
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    axes.set_axis_off()
    axes.set_xlim(0, 100)
    total = height * 0.96 / 0.36  # rows of 0.36 inch
    axes.set_ylim(total, 0)
    axes.text(0, 0.75, "Leaderboard", fontsize=13, fontweight="bold", va="center")
    subtitle = f"{scene.run.run_id}: {scene.run.space} on {scene.run.task}, {len(scene.scored)} evaluated"
    axes.text(0, 1.6, subtitle, fontsize=9, color=style.SOFT, va="center")
    if not found:
        style.empty(axes, "no candidate has a score yet")
        return figure
    heads = ((3, "#", "right"), (5, "candidate", "left"), (15, "arm", "left"), (27, scene.run.metric, "left"))
    more = (
        (52, "test", "right"),
        (62, "latency", "right"),
        (71, "params", "right"),
        (73, "architecture", "left"),
    )
    for x, text, side in (*heads, *more):
        axes.text(x, 2.7, text, ha=side, va="center", fontsize=8.5, color=style.SOFT)
    axes.plot([0, 100], [3.15, 3.15], color=style.SOFT, linewidth=0.8)
    worths = [scene.worth(row.candidate) for row in found]
    low, high = min(worths), max(worths)
    for n_row, row in enumerate(found):
        filled = 0.12 + 0.88 * ((scene.worth(row.candidate) - low) / (high - low) if high > low else 1.0)
        _draw_row(axes, scene, row, 3.75 + n_row, filled)
    bottom = 3.75 + len(found)
    axes.text(0, bottom, "◆ on the Pareto front", fontsize=8, color=style.SOFT, va="center")
    return figure


def _draw_row(axes: Axes, scene: Scene, row: Row, y: float, filled: float) -> None:
    c = row.candidate
    colour = style.arm_colour(c.proposal.arm)
    first = row.rank == "1"
    weight = "bold" if first else "normal"
    if first:
        axes.add_patch(Rectangle((0, y - 0.5), 100, 1.0, facecolor="#f3f6fa", edgecolor="none", zorder=0))
    axes.text(3, y, row.rank, ha="right", va="center", color=style.SOFT)
    axes.text(5, y, f"{c.id}{' ◆' if row.on_front else ''}", va="center", fontweight=weight)
    chip = {"boxstyle": "round,pad=0.25,rounding_size=0.5", "facecolor": colour, "edgecolor": "none"}
    axes.text(15.4, y, c.proposal.arm, va="center", fontsize=8, color=style.PAPER, bbox=chip)
    bar = FancyBboxPatch(
        (27, y - 0.26),
        max(12.0 * filled, 0.4),
        0.52,
        boxstyle="round,pad=0,rounding_size=0.2",
        facecolor=colour,
        edgecolor="none",
        alpha=0.85,
        mutation_aspect=1.0,
    )
    axes.add_patch(bar)
    axes.text(40, y, show_score(scene.run.metric, c.score), va="center", fontweight=weight)
    parameters = c.static.parameters if c.static is not None else None
    for x, text in (
        (52, show_score(scene.run.metric, c.test_score)),
        (62, show_cost("latency_ms", c.latency_ms)),
        (71, show_count(parameters)),
    ):
        axes.text(x, y, text, ha="right", va="center")
    axes.text(73, y, one_line(row.name, 52), va="center", fontsize=8, color=style.INK)


def _name(scene: Scene, candidate: Candidate) -> str:
    if candidate.proposal.arm == BASELINE_ARM:
        return one_line(
            f"baseline {scene.baseline_name(candidate)}".replace("baseline baseline", "baseline"), 100
        )
    return one_line(candidate.summary, 100)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body{{font:14px/1.4 system-ui,sans-serif;color:#1d2530;margin:24px;max-width:1100px}}
table{{border-collapse:collapse;width:100%}}
th{{text-align:left;color:#66707d;font-weight:500;border-bottom:1px solid #66707d;padding:4px 10px}}
td{{border-bottom:1px solid #e6eaef;padding:8px 10px;vertical-align:top}}
.n{{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}}
small{{color:#66707d}} img{{display:block;max-width:560px;max-height:180px;margin-top:6px}}
.arm{{color:#fff;border-radius:8px;padding:1px 8px;font-size:12px}}
</style></head><body><h2>{title}</h2><table>
<tr><th class=n>#</th><th>candidate</th><th class=n>{metric}</th><th class=n>cost</th>
<th>architecture</th></tr>
{rows}
</table><p><small>◆ on the Pareto front; - breaks a limit</small></p></body></html>
"""
