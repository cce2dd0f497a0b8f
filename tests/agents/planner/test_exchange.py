from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from cambrian.agents.errors import InfrastructureError
from cambrian.agents.planner.exchange import Exchange, ExchangeLog, Message, Usage, request_key

ASKED = (Message(role="system", content="You design."), Message(role="user", content="Propose."))


def record(
    log: ExchangeLog, response: str | None, *, key: str = "k", tokens: int = 10, calls: int = 1
) -> Exchange:
    begun = log.begin(
        key=key, role="propose", model="m", messages=ASKED, schema_name="proposal", templates={"a.j2": "12"}
    )
    done = begun.model_copy(
        update={
            "response": response,
            "usage": Usage(prompt_tokens=tokens, completion_tokens=1),
            "calls": calls,
            "seconds": 0.5,
        }
    )
    log.write(done)
    return done


def test_a_record_comes_back_as_it_was_written(exchanges: ExchangeLog) -> None:
    written = record(exchanges, 'an answer with "quotes" and ü')
    assert written.id == "x-0001"
    assert exchanges.get("x-0001") == written
    assert json.loads((exchanges.folder / "x-0001.json").read_text("utf-8"))["templates"] == {"a.j2": "12"}
    with pytest.raises(KeyError):
        exchanges.get("x-0002")


def test_totals_survive_and_ids_go_on(tmp_path: Path) -> None:
    log = ExchangeLog(tmp_path)
    record(log, "one", tokens=100, calls=3)
    record(log, None, tokens=0)
    again = ExchangeLog(tmp_path)
    assert (again.calls, again.tokens, len(again)) == (log.calls, log.tokens, 2) == (4, 102, 2)
    assert record(again, "three").id == "x-0003"


def test_a_record_written_again_is_counted_once(exchanges: ExchangeLog) -> None:
    first = record(exchanges, None, tokens=5)
    exchanges.write(first.model_copy(update={"calls": 2, "usage": Usage(prompt_tokens=9)}))
    assert (exchanges.calls, exchanges.tokens, len(exchanges)) == (2, 9, 1)


def test_recorded_answers_are_handed_out_once_and_in_order(tmp_path: Path) -> None:
    log = ExchangeLog(tmp_path)
    for text in ("first", None, "second"):
        record(log, text)
    record(log, "other", key="another")
    assert log.recorded("k") is None, "what this process asked is not a replay"
    resumed = ExchangeLog(tmp_path)
    answers = [resumed.recorded("k") for _ in range(3)]
    assert [a.response if a else None for a in answers] == ["first", "second", None]
    assert resumed.recorded("unknown") is None


def test_equal_questions_have_equal_keys() -> None:
    schema = {"type": "object"}
    key = request_key("m", ASKED, schema)
    assert key == request_key("m", list(ASKED), dict(schema))
    others = [
        request_key("n", ASKED, schema),
        request_key("m", ASKED[:1], schema),
        request_key("m", ASKED, None),
        request_key("m", (ASKED[0], Message(role="assistant", content="Propose.")), schema),
    ]
    assert len({key, *others}) == 5


def test_a_damaged_record_is_left_out_but_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(ExchangeLog(tmp_path), "one")
    (tmp_path / "exchanges" / "x-0002.json").write_text('{"id": "x-0002"', "utf-8")
    (tmp_path / "exchanges" / "x-0003.tmp").write_text("half", "utf-8")
    with caplog.at_level(logging.WARNING):
        log = ExchangeLog(tmp_path)
    assert "x-0002.json is damaged" in caplog.text
    assert log.calls == 2, "it was paid for"
    with pytest.raises(InfrastructureError, match="x-0002 cannot be read"):
        log.get("x-0002")
    assert record(log, "three").id == "x-0003"


def test_a_folder_that_cannot_be_written_is_infrastructure(tmp_path: Path) -> None:
    log = ExchangeLog(tmp_path)
    (tmp_path / "exchanges").write_text("a file where the folder should be")
    with pytest.raises(InfrastructureError, match=r"cannot write .*x-0001\.json") as caught:
        record(log, "one")
    assert "resume" in caught.value.hint


def test_nothing_lies_on_disk_before_the_first_exchange(tmp_path: Path) -> None:
    assert len(ExchangeLog(tmp_path)) == 0
    assert list(tmp_path.iterdir()) == []
