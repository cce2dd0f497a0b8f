"""Every registered space passes the contract, and all that follows from a space follows from it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cambrian.agents.planner.prompt_check import check_prompts
from cambrian.agents.runfile import load_run_file
from cambrian.sandbox.examination.identity import identity
from cambrian.search_spaces import SPACES, TASKS, Genotype, MissingDataError, Signature, Space
from cambrian.search_spaces.declarative.plan import depth
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.space import DeclarativeSpace
from cambrian.search_spaces.tasks.listing import parse_listed
from tests.contracts.space import SpaceContract

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestRegisteredSpaces(SpaceContract):
    @pytest.fixture(scope="class", params=SPACES.names())
    def space(self, request: pytest.FixtureRequest) -> Space:
        return SPACES.create(request.param)

    def test_samples_and_edits_are_well_typed_everywhere(
        self, space: Space, members: list[Genotype], signatures: list[Signature]
    ) -> None:
        """1,000 samples and an edit of each, for every input that the space says it takes."""
        assert isinstance(space, DeclarativeSpace)
        rng, limits = random.Random(29), space.definition.file.limits
        for genotype in members:
            for each in (genotype, space.mutate(genotype, rng)[0]):
                plans = [plan(space.definition, each, signature) for signature in signatures]
                assert plans[0].params <= (limits.params or plans[0].params)
                assert plans[0].macs <= (limits.macs or plans[0].macs)
                assert depth(plans[0]) <= (limits.depth or depth(plans[0]))

    def test_identity_survives_save_and_load(
        self, space: Space, members: list[Genotype], signatures: list[Signature], tmp_path: Path
    ) -> None:
        chosen = members[:12]
        (tmp_path / "members.json").write_text(json.dumps(chosen, sort_keys=True))
        loaded = json.loads((tmp_path / "members.json").read_text())
        fresh = SPACES.create(space.name)
        found = [identity(space, genotype, signatures[0]) for genotype in chosen]
        again = [identity(fresh, fresh.validate(genotype), signatures[0]) for genotype in loaded]
        assert found == again
        assert len(set(found)) > len(found) // 2

    def test_published_counts(self, space: Space) -> None:
        """Where a paper states the parameters of a baseline, ours has as many."""
        assert isinstance(space, DeclarativeSpace)
        for name, baseline in space.definition.file.baselines.items():
            if baseline.parameters is None:
                continue
            at, signature = baseline.at, space.definition.file.reference
            if at is not None:
                signature = Signature(
                    input_shape=at.input_shape, n_outputs=at.n_outputs, vocabulary=at.vocabulary
                )
            with torch.device("meta"):
                network = space.build(space.baselines()[name], signature)
            count = sum(parameter.numel() for parameter in network.parameters())
            tolerance = at.tolerance if at is not None else 0.0
            assert abs(count - baseline.parameters) <= tolerance * baseline.parameters, (name, count)

    def test_a_run_file_and_a_prompt_come_with_it(self, space: Space) -> None:
        """The run file is valid, its task is one that the space fits, and the prompt can be rendered."""
        named = [
            path for path in (ROOT / "runs").glob("*.yaml") if f"\nspace: {space.name}\n" in path.read_text()
        ]
        assert named, f"no run file in runs/ searches {space.name}"
        for path in named:
            config = load_run_file(path)
            assert set(config.baselines) <= set(space.baselines())
            task = TASKS.create(config.task.name, **config.task.options())
            assert isinstance(space, DeclarativeSpace)
            assert config.task.name in {parse_listed(text)[0] for text in space.definition.file.tasks}
            for genotype in space.baselines().values():
                space.build(genotype, task.signature)
            try:
                task.load()
            except MissingDataError:
                continue
            check_prompts(config, space, task)

    def test_the_readmes_picture_is_what_the_space_draws_now(self, space: Space) -> None:
        assert isinstance(space, DeclarativeSpace)
        found = re.search(r"^PICTURES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert found is not None
        pictured = dict(pair.split("=") for pair in found[1].split())
        drawn = space.draw(space.baselines()[pictured[space.name]], space.definition.file.reference)
        # compared beforehand, as pytest would print both texts
        current = (space.folder / "design.svg").read_text(encoding="utf-8") == drawn
        assert current, f"search_spaces/{space.name}/design.svg is out of date: run make pictures"
        assert f"search_spaces/{space.name}/design.svg" in (ROOT / "README.md").read_text()

    def test_notes_and_advice_come_with_it(self, space: Space) -> None:
        assert isinstance(space, DeclarativeSpace)
        notes = sorted((space.folder / "knowledge").glob("*.md"))
        assert notes and all(len(note.read_text()) > 400 for note in notes)
        assert (ROOT / "prompts" / space.name / "propose.j2").is_file()
