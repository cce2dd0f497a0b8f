"""Names of numbers and motifs in words, for planners and people."""

from __future__ import annotations

from cambrian.agents.evaluator.encoding import PROXY

_WORDS = {
    "live.log_params": "parameters that the output depends on",
    "live.log_macs": "multiply-accumulates that the output depends on",
    "live.deepest": "blocks with weights on the longest path",
    "live.shallowest": "blocks with weights on the shortest path",
    "live.mean": "blocks with weights on the average path",
    "live.log_paths": "paths from the input to the output",
    "live.skips": "paths around everything",
    "live.dead": "computing nothing",
    "log_params": "parameters",
    "log_macs": "multiply-accumulates",
    "log_activations": "activations",
}


def in_words(name: str) -> str:
    """A number or a motif of an encoding as a planner may read it."""
    if name in _WORDS:
        return _WORDS[name]
    if name.startswith("live.blocks."):
        return f"{name.removeprefix('live.blocks.')} blocks that the output depends on"
    if name.startswith(PROXY):
        return f"zero-cost proxy {name.removeprefix(PROXY)}"
    kind, bar, motif = name.partition("|")
    if not bar or not (kind.isdigit() or kind in ("path", "=")):
        return name
    return f"a path of {motif.replace('>', ', then ')}" if kind == "path" else motif
