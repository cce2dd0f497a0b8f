"""The leaderboard: as a picture, as Markdown and as one HTML page with the architectures drawn."""

from __future__ import annotations

import base64
import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cambrian.agents.evaluator.leaderboard import Standing
from cambrian.agents.population.model import BASELINE_ARM, CONTROL_ARM, Candidate
from cambrian.agents.recorder.pictures import style
from cambrian.agents.recorder.pictures.scene import Scene
from cambrian.agents.wording import escape_markdown, one_line, show_cost, show_count, show_score

_LINE_INCH = 0.34
_TOP = 3.1  # lines above the first row
_TRACK = (20.0, 31.0)
_SHORT_TRACK = (23.5, 31.0)  # where a column stands before it
_ROOM_FOR_INTERVAL = 2.0
_LEGEND_WIDTH = 205  # characters


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard.

    Attributes:
        rank: the place, with `=` when it is tied with the first; `-` for one that breaks a limit.
        effort: how long it was trained; empty when all lines were trained alike.
        is_extra: shown for comparison only.
        standing: None for one that breaks a limit.
    """

    rank: str
    effort: str
    candidate: Candidate
    name: str
    on_front: bool
    is_extra: bool
    standing: Standing | None = None

    @property
    def score(self) -> float:
        """What decides the place: a mean over fresh seeds, or the score of the only training."""
        told = self.standing
        if told is not None and told.champion and told.mean is not None:
            return told.mean
        return self.candidate.score or 0.0

    @property
    def test_score(self) -> float | None:
        """On the test split, over the same trainings."""
        told = self.standing
        return told.test_mean if told is not None and told.champion else self.candidate.test_score

    def score_text(self, metric: str) -> str:
        """The score with its interval and the number of seeds behind it, where there is more than one."""
        told, text = self.standing, show_score(metric, self.score)
        if told is None or not told.champion:
            return text
        if told.half_width is None:
            return f"{text} ({told.seeds})"
        width = show_score(metric, told.half_width)
        return f"{text.removesuffix(' %')} ± {width} ({told.seeds})"


def rows(scene: Scene, n: int = 12) -> list[Row]:
    """The best `n`, then the best of the control arm and the baselines where these are not among them."""
    chosen = list(scene.ranking[:n])
    control = scene.best_of(CONTROL_ARM)
    for candidate in [control, *(c for c in scene.scored if c.proposal.arm == BASELINE_ARM)]:
        if candidate is not None and candidate not in chosen:
            chosen.append(candidate)
    uneven = len({c.rung for c in chosen}) > 1
    effort = _effort(scene)[1]
    found = []
    for place, c in enumerate(chosen):
        standing = scene.standings.get(c.id)
        found.append(
            Row(
                rank="-" if standing is None else f"{standing.place}{'=' if standing.tied else ''}",
                effort=str(effort[c.id]) if uneven else "",
                candidate=c,
                name=_name(scene, c),
                on_front=standing is not None and standing.on_front,
                is_extra=place >= n,
                standing=standing,
            )
        )
    return found


def _effort(scene: Scene) -> tuple[str, Mapping[str, int]]:
    """What tells how long candidates were trained, title and values by id: epochs, or rungs if unknown."""
    if all(c.id in scene.epochs for c in scene.scored):
        return "epochs", scene.epochs
    return "rung", {c.id: c.rung for c in scene.scored}


def _effort_title(scene: Scene, found: Sequence[Row]) -> str:
    """The title of the column `effort`, empty when there is none."""
    return _effort(scene)[0] if found and found[0].effort else ""


def _legend(found: Sequence[Row], *, drawn: bool = False) -> str:
    """What the signs in the table mean, those that occur; `drawn`: in the picture."""
    said = ["◆ on the Pareto front"]
    if any(row.rank.endswith("=") for row in found):
        said.append("= differs from the first by no more than the noise")
    if any(row.standing is not None and row.standing.champion for row in found):
        said.append("± 95 % of a mean over (n) fresh seeds")
        said += ["○ the score that got it chosen, which does not count"] if drawn else []
    if any(row.candidate.reproduced for row in found):
        said.append("✓ reproduced from its weights")
    if any(row.rank == "-" for row in found):
        said.append("- breaks a limit")
    if found and found[0].effort:
        said.append("scores compare after equal epochs only: who was trained longer stands first")
    return "; ".join(said)


def _signs(row: Row) -> str:
    return f"{' ◆' if row.on_front else ''}{' ✓' if row.candidate.reproduced else ''}"


def markdown(scene: Scene, n: int = 12, links: Mapping[str, str] | None = None) -> str:
    """The leaderboard as a Markdown table; `links` lead from ids to pages."""
    found = rows(scene, n)
    if not found:
        return ""
    metric, effort = scene.run.metric, _effort_title(scene, found)
    titles = ["#", "candidate", "arm", effort, metric, "test", "latency", "parameters", "architecture"]
    sides = ["---:", "---", "---", "---:" if effort else "", "---:", "---:", "---:", "---:", "---"]
    lines = [_line(titles), _line(sides)]
    for row in found:
        c = row.candidate
        name = f"[{c.id}]({links[c.id]})" if links and c.id in links else c.id
        score = row.score_text(metric)
        parameters = c.static.parameters if c.static is not None else None
        cells = [
            row.rank,
            f"{name}{_signs(row)}",
            c.proposal.arm,
            row.effort,
            f"**{score}**" if row.rank == "1" else score,
            show_score(metric, row.test_score),
            show_cost("latency_ms", c.latency_ms),
            show_count(parameters),
            escape_markdown(row.name),
        ]
        lines.append(_line(cells))
    return "\n".join([*lines, "", _legend(found)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell for cell in cells if cell) + " |"


def page(scene: Scene, drawings: Mapping[str, str], n: int = 12) -> str:
    """The leaderboard as HTML that loads nothing; `drawings` are SVGs by candidate id.

    Drawings are embedded as images, in which a browser runs no script.
    """
    metric = scene.run.metric
    body = []
    found = rows(scene, n)
    effort = _effort_title(scene, found)
    for row in found:
        c = row.candidate
        svg = drawings.get(c.id)
        image = ""
        if svg is not None:
            data = base64.b64encode(svg.encode()).decode()
            image = f'<img alt="architecture of {c.id}" src="data:image/svg+xml;base64,{data}">'
        parameters = c.static.parameters if c.static is not None else None
        worked = f"<td class=n>{row.effort}</td>" if effort else ""
        body.append(
            f"<tr><td class=n>{row.rank}</td><td><b>{c.id}</b>{_signs(row)}<br>"
            f'<span class=arm style="background:{style.arm_colour(c.proposal.arm)}">'
            f"{html.escape(c.proposal.arm)}</span></td>"
            f"{worked}<td class=n><b>{row.score_text(metric)}</b><br><small>test "
            f"{show_score(metric, row.test_score)}</small></td>"
            f"<td class=n>{show_cost('latency_ms', c.latency_ms)}<br><small>{show_count(parameters)} "
            f"parameters</small></td><td>{html.escape(row.name)}{image}</td></tr>"
        )
    title = html.escape(f"Leaderboard of {scene.run.run_id}")
    head = (f"<th class=n>{effort}</th>" if effort else "") + f"<th class=n>{html.escape(metric)}</th>"
    return _PAGE.format(title=title, head=head, rows="\n".join(body), legend=_legend(found))


def leaderboard(scene: Scene, n: int = 12) -> Figure:
    """The leaderboard as a picture; a dot shows each score between the least and the best of the table."""
    found = rows(scene, n)
    below = _legend(found, drawn=True)
    if any(row.is_extra for row in found):
        below += "; beneath the line, for comparison: the best of the control arm and the baselines"
    legend = textwrap.wrap(below, _LEGEND_WIDTH)
    lines = _TOP + max(len(found), 4) + 0.3 + 0.6 * max(len(legend), 1)
    figure = Figure(figsize=(12.6, lines * _LINE_INCH))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(-1, 101)
    axes.set_ylim(lines, 0)
    axes.text(0, 0.7, "Leaderboard", fontsize=13, fontweight="bold", va="center")
    subtitle = f"{scene.run.run_id}: {scene.run.space} on {scene.run.task}, {len(scene.scored)} evaluated"
    axes.text(0, 1.5, subtitle, fontsize=9, color=style.SOFT, va="center")
    if not found:
        axes.text(50, lines / 2, "no candidate has a score yet", color=style.SOFT, fontsize=12, ha="center")
        return figure
    effort = _effort_title(scene, found)
    left, right = _SHORT_TRACK if effort else _TRACK
    verified = any(row.standing is not None and row.standing.champion for row in found)
    track = (left, right - _ROOM_FOR_INTERVAL if verified else right)
    for x, text, side in (
        (2.5, "#", "right"),
        (4, "candidate", "left"),
        (12.5, "arm", "left"),
        (22.0, effort, "right"),
        (track[0], scene.run.metric, "left"),
        (46, "test", "right"),
        (53, "latency", "right"),
        (59.2, "params", "right"),
        (60.7, "architecture", "left"),
    ):
        axes.text(x, 2.5, text, ha=side, va="center", fontsize=8.5, color=style.SOFT)
    axes.plot([0, 100], [2.95, 2.95], color=style.SOFT, linewidth=0.8)
    scores = [score for row in found for score in (row.score, row.candidate.score or 0.0)]
    scale = style.ScoreScale(scores, scene.run.metric, scene.run.maximize)
    for place, row in enumerate(found):
        if place and row.is_extra and not found[place - 1].is_extra:
            axes.plot([0, 100], [_TOP + place - 0.02] * 2, color=style.FAINT, linewidth=0.9)
        _draw_row(axes, scene, scale, row, _TOP + 0.5 + place, track)
    for number, text in enumerate(legend):
        y = _TOP + len(found) + 0.45 + 0.6 * number
        axes.text(0, y, text, fontsize=8, color=style.SOFT, va="center")
    return figure


def _draw_row(
    axes: Axes, scene: Scene, scale: style.ScoreScale, row: Row, y: float, track: tuple[float, float]
) -> None:
    c = row.candidate
    colour = style.arm_colour(c.proposal.arm)
    first = row.rank == "1"
    weight = "bold" if first else "normal"
    if first:
        axes.add_patch(Rectangle((0, y - 0.5), 100, 1.0, facecolor="#f1f4f8", edgecolor="none", zorder=0))
    axes.text(2.5, y, row.rank, ha="right", va="center", color=style.SOFT)
    axes.text(4, y, f"{c.id}{_signs(row)}", va="center", fontweight=weight)
    chip = {"boxstyle": "round,pad=0.25,rounding_size=0.5", "facecolor": colour, "edgecolor": "none"}
    axes.text(12.8, y, c.proposal.arm, va="center", fontsize=8, color=style.PAPER, bbox=chip)
    left, right = track
    axes.plot([left, right], [y, y], color=style.FAINT, linewidth=1.4, solid_capstyle="round")
    told = row.standing
    if told is not None and told.champion:
        wide = told.half_width or 0.0
        ends = [left + (right - left) * scale.share(row.score + side * wide) for side in (-1, 1)]
        axes.plot(ends, [y, y], color=colour, linewidth=2.2, alpha=0.45, solid_capstyle="butt")
        chosen = left + (right - left) * scale.share(told.score)
        axes.plot(
            [chosen], [y], marker="o", markerfacecolor="none", markeredgecolor=style.SOFT, markersize=5.5
        )
    at = left + (right - left) * scale.share(row.score)
    axes.plot([at], [y], marker=style.arm_marker(c.proposal.arm), color=colour, markersize=7.5, clip_on=False)
    size = 8.5 if told is not None and told.champion else 9.5
    text = row.score_text(scene.run.metric)
    axes.text(right + 1.2, y, text, va="center", fontweight=weight, fontsize=size)
    parameters = c.static.parameters if c.static is not None else None
    for x, text in (
        (22.0, row.effort),
        (46, show_score(scene.run.metric, row.test_score)),
        (53, show_cost("latency_ms", c.latency_ms)),
        (59.2, show_count(parameters)),
    ):
        axes.text(x, y, text, ha="right", va="center")
    axes.text(60.7, y, one_line(row.name, 82), va="center", fontsize=8, color=style.INK)


def _name(scene: Scene, candidate: Candidate) -> str:
    if candidate.proposal.arm == BASELINE_ARM:
        return one_line(f"{scene.baseline_name(candidate)}: {candidate.summary}", 100)
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
<tr><th class=n>#</th><th>candidate</th>{head}<th class=n>cost</th>
<th>architecture</th></tr>
{rows}
</table><p><small>{legend}</small></p></body></html>
"""
