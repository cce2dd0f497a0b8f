"""Whole runs against servers that do everything wrong; `make bench NAME=faults` meets each fault alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from cambrian.agents.planner import openai_client
from tests.benchmarks.faults.trouble import FAULTS, endure, mixed
from tests.support.instant import InstantSandbox

STAYS = {"429, quota gone", "401, key refused", "404, no such model", "429, Retry-After 2 min"}
"""After these the model is left alone at once: in a short run few others would be met."""
SLOW = {"slow drip", "body of 64 MB", "answer of 1 MB", "429, Retry-After 1 s"}


async def test_all_faults_in_turn_cost_a_run_nothing(
    instant: list[InstantSandbox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_client, "FIRST_WAIT_S", 0.01)
    faults = [FAULTS[name] for name in FAULTS if name not in STAYS | SLOW]
    endured = await endure(mixed(*faults), tmp_path, 10, api="responses", failures=9, retries=2)
    assert endured.evaluations == 10 and endured.by_model > 0
    assert (endured.calls, endured.tokens) == (endured.server_calls, endured.server_tokens)
    assert endured.calls >= 5


async def test_a_server_without_schemas_is_asked_in_words(
    instant: list[InstantSandbox], tmp_path: Path
) -> None:
    endured = await endure(FAULTS["no schemas"], tmp_path, 8)
    assert endured.evaluations == 8 and endured.by_model > 0 and endured.exact
    assert not [line for line in endured.lines if "model" in line], "nothing that people need to know"


async def test_a_model_for_which_the_quota_is_gone_is_said_once(
    instant: list[InstantSandbox], tmp_path: Path
) -> None:
    endured = await endure(FAULTS["429, quota gone"], tmp_path, 8)
    assert endured.evaluations == 8 and endured.by_model == 0 and endured.exact
    told = [line for line in endured.lines if line.startswith("model test-model")]
    assert len(told) == 1 and "pay first" in told[0]
