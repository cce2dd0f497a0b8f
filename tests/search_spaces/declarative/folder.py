"""Space folders for tests, written from text."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from typing import Any

HEAD = """
name: probe
version: "1"
title: A space of a test
about: Only for tests.
reference: {reference}
rules:
"""


def write_space(
    folder: Path, rules: str, *, reference: str = "{input_shape: [3, 12, 10], n_outputs: 5}", **top: Any
) -> Path:
    """A folder whose `space.yaml` has these rules; `top` adds keys of the top level as YAML text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = HEAD.replace("{reference}", reference) + indent(dedent(rules).strip(), "  ") + "\n"
    for key, value in top.items():
        text += f"{key}: {value}\n"
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return folder


def write_layout(folder: Path, body: str, **keywords: Any) -> Path:
    """A space without choices that builds `body`, then the mean of its channels and a classifier."""
    head = "- {Linear: {out: =n_outputs}}"
    rules = "network:\n  fields: {width: [8, 16]}\n  build:\n" + indent(dedent(body).strip(), "    ")
    return write_space(folder, f"{rules}\n    {head}\n", **keywords)
