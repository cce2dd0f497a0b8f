from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

from cambrian.agents.errors import UserError
from cambrian.agents.review import Decision, FolderDesk, added_text
from tests.contracts.review import PARKED, Decide, ReviewDeskContract, only


class TestFolderDesk(ReviewDeskContract):
    @pytest.fixture
    def desk(self, tmp_path: Path) -> FolderDesk:
        return FolderDesk(tmp_path / "review")

    @pytest.fixture
    def decide(self, tmp_path: Path) -> Decide:
        def decide(cid: str, verdict: Literal["approve", "reject"], reason: str = "") -> None:
            FolderDesk(tmp_path / "review").decide(cid, verdict, reason, by="ada")

        return decide

    def test_tells_who_decided(self, desk: FolderDesk, decide: Decide) -> None:
        decide("c-0001", "approve")
        assert only(desk.poll(PARKED)).by == "ada"

    def test_another_process_can_decide(self, desk: FolderDesk) -> None:
        code = (
            "import sys; from pathlib import Path; from cambrian.agents.review import FolderDesk; "
            "FolderDesk(Path(sys.argv[1])).decide('c-0002', 'approve', 'seen')"
        )
        subprocess.run([sys.executable, "-P", "-c", code, desk.folder], check=True)
        assert only(desk.poll(PARKED)).reason == "seen"

    def test_leaves_nothing_but_decisions_behind(self, desk: FolderDesk, decide: Decide) -> None:
        decide("c-0001", "approve")
        decide("c-0001", "reject")
        assert [path.name for path in desk.folder.iterdir()] == ["c-0001.json"]

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"{", "Expecting property name"),
            (b"\xff\xfe", "can't decode"),
            (b"[]", "valid dictionary"),
            (b'{"candidate_id": "c-0001", "verdict": "maybe"}', "verdict"),
            (b'{"candidate_id": "c-0001", "verdict": "approve", "x": 1}', "x: Extra"),
            (b'{"candidate_id": "c-0002", "verdict": "approve"}', "decides on c-0002, not on c-0001"),
            (b'{"reason": "' + b"x" * 70_000 + b'"}', "larger than"),
            (b"[" * 50_000, "c-0001.json"),
        ],
    )
    def test_a_malformed_file_is_reported_once_and_kept(
        self, desk: FolderDesk, caplog: pytest.LogCaptureFixture, content: bytes, why: str
    ) -> None:
        desk.folder.mkdir()
        path = desk.folder / "c-0001.json"
        path.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert desk.poll(PARKED) == desk.poll(PARKED) == []
        (record,) = caplog.records
        assert "c-0001.json is ignored" in record.getMessage() and why in record.getMessage()
        assert path.read_bytes() == content

    def test_a_mended_file_counts(self, desk: FolderDesk) -> None:
        desk.folder.mkdir()
        path = desk.folder / "c-0001.json"
        path.write_text("nonsense")
        assert desk.poll(PARKED) == []
        path.write_text(json.dumps({"candidate_id": "c-0001", "verdict": "approve"}))
        assert only(desk.poll(PARKED)).verdict == "approve"

    def test_no_decision_leaves_its_folder(self, desk: FolderDesk) -> None:
        with pytest.raises(ValidationError, match="candidate_id"):
            desk.decide("../../c-0001", "approve")
        assert not desk.folder.exists()

    def test_a_folder_that_cannot_be_written_is_the_users_error(self, tmp_path: Path) -> None:
        (tmp_path / "review").write_text("a file where the folder should be")
        with pytest.raises(UserError, match=r"cannot write the decision .*c-0001\.json"):
            FolderDesk(tmp_path / "review").decide("c-0001", "approve")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_an_unreadable_file_is_no_decision(self, desk: FolderDesk, decide: Decide) -> None:
        decide("c-0001", "approve")
        (desk.folder / "c-0001.json").chmod(0)
        assert desk.poll(PARKED) == []


def test_a_decision_says_nothing_that_was_not_asked() -> None:
    with pytest.raises(ValidationError):
        Decision.model_validate({"candidate_id": "c-0001", "verdict": "approve", "because": "x"})


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        ("**0.97**\n\n> ours\n", ""),
        ("**0.97**\r\n\r\n> ours  ", ""),
        ("**0.97**\n\n> ours\n\nToo wide.\nTry 16.", "Too wide.\nTry 16."),
        ("Too wide.\n\n**0.97**\n\n> ours", "Too wide."),
        ("> Too wide.", "Too wide."),
        ("", ""),
    ],
)
def test_a_reason_is_what_was_added_to_the_description(theirs: str, reason: str) -> None:
    assert added_text("**0.97**\n\n> ours\n", theirs) == reason
