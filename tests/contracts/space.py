"""What every `Space` must do: inherit `SpaceContract` and give it a `space` and its `signatures`."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cambrian.search_spaces import Genotype, ProposalError, Signature, Space
from tests.contracts.inputs import inputs_of, signatures_of, with_graph

FORBIDDEN_KEYWORDS = {"oneOf", "allOf", "not", "prefixItems", "patternProperties", "default"}

RUN_EXPORTED = """
import sys, importlib.util, torch
from safetensors.torch import load_file, save_file
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("exported", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
loaded = {name.split(".")[0] for name in set(sys.modules) - before}
assert loaded <= {"exported"}, loaded
assert "cambrian" not in sys.modules
torch.set_num_threads(1)
network = module.build()
tensors = load_file(sys.argv[2])
inputs = tensors.pop("inputs")
network.load_state_dict(tensors, strict=True)
network.eval()
with torch.no_grad():
    save_file({"outputs": network(inputs).contiguous()}, sys.argv[3])
"""


class SpaceContract:
    """Subclasses override the fixture `space`; `signatures` follow from it."""

    samples = 1000
    built = 40

    @pytest.fixture(scope="class")
    def space(self) -> Space:
        raise AssertionError("a subclass gives the space")

    @pytest.fixture(scope="class")
    def signatures(self, space: Space) -> list[Signature]:
        """From the smallest input to a large one; nothing that `sample` returns may refuse any of them."""
        return signatures_of(space)

    @pytest.fixture(scope="class")
    def members(self, space: Space) -> list[Genotype]:
        rng = random.Random(7)
        return [*space.baselines().values(), *(space.sample(rng) for _ in range(self.samples))]

    def test_says_what_it_is(self, space: Space) -> None:
        assert isinstance(space, Space)
        assert space.name and space.version
        assert space.kind in ("declarative", "code")
        assert len(space.describe()) > 200

    def test_samples_are_canonical_and_various(self, space: Space, members: list[Genotype]) -> None:
        for genotype in members:
            assert space.validate(genotype) == genotype
        assert len({json.dumps(g, sort_keys=True) for g in members}) > 0.9 * len(members)

    def test_json_round_trip(self, space: Space, members: list[Genotype]) -> None:
        for genotype in members:
            assert space.validate(json.loads(json.dumps(genotype))) == genotype

    def test_equal_generators_give_equal_results(self, space: Space) -> None:
        def history(seed: int) -> str:
            rng = random.Random(seed)
            first, second = space.sample(rng), space.sample(rng)
            return json.dumps([first, space.mutate(first, rng), space.crossover(first, second, rng)])

        assert history(3) == history(3)
        assert history(3) != history(4)

    def test_random_walk_of_edits_stays_inside(self, space: Space, members: list[Genotype]) -> None:
        rng = random.Random(11)
        genotype = members[0]
        for _ in range(self.samples):
            before = json.dumps(genotype)
            child, words = space.mutate(genotype, rng)
            assert json.dumps(genotype) == before, "the parent was changed in place"
            assert child != genotype
            assert space.validate(child) == child
            assert words and len(words) <= 100 and "\n" not in words
            genotype = child

    def test_each_member_has_neighbours(self, space: Space, members: list[Genotype]) -> None:
        rng = random.Random(13)
        for genotype in members:
            assert space.mutate(genotype, rng)[0] != genotype

    def test_children_of_two_parents(self, space: Space, members: list[Genotype]) -> None:
        rng = random.Random(17)
        new = 0
        for first, second in itertools.pairwise(members):
            before = json.dumps([first, second])
            child, words = space.crossover(first, second, rng)
            assert json.dumps([first, second]) == before, "a parent was changed in place"
            assert space.validate(child) == child
            assert words and len(words) <= 100
            new += child not in (first, second)
        assert new > 0.5 * len(members)

    def test_results_do_not_share_parts(self, space: Space, members: list[Genotype]) -> None:
        """Whoever changes a child in place must not change its parents."""
        rng = random.Random(19)
        first, second = members[0], members[1]
        before = json.dumps([first, second])
        for child in (space.mutate(first, rng)[0], space.crossover(first, second, rng)[0]):
            _spoil(child)
        assert json.dumps([first, second]) == before

    @pytest.mark.parametrize("data", [None, 3, "text", [], {}, {"no": "such gene"}, [1, 2], True])
    def test_rubbish_is_refused_in_words(self, space: Space, data: object) -> None:
        with pytest.raises(ProposalError) as caught:
            space.validate(data)
        assert caught.value.message and "\n" not in caught.value.message

    def test_unknown_gene_is_refused(self, space: Space, members: list[Genotype]) -> None:
        with pytest.raises(ProposalError, match="surprise"):
            space.validate({**members[0], "surprise": 1})

    def test_schema_is_strict(self, space: Space) -> None:
        _check_strict(space.schema())
        json.dumps(space.schema())

    def test_members_conform_to_the_schema(self, space: Space, members: list[Genotype]) -> None:
        schema = space.schema()
        for genotype in members:
            assert conforms(genotype, schema), genotype

    def test_features(self, space: Space, members: list[Genotype]) -> None:
        keys = list(space.features(members[0]))
        for genotype in members:
            found = space.features(genotype)
            assert list(found) == keys
            assert all(type(value) is float and abs(value) < 1e9 for value in found.values())
        different = {tuple(space.features(genotype).values()) for genotype in members}
        assert len(different) > 0.9 * len(members)

    def test_summaries(self, space: Space, members: list[Genotype]) -> None:
        summaries = [space.summarise(genotype) for genotype in members]
        assert all(0 < len(line) <= 100 and "\n" not in line for line in summaries)
        assert len(set(summaries)) > 0.8 * len(members)

    def test_pictures(self, space: Space, members: list[Genotype], signatures: list[Signature]) -> None:
        for genotype in members[:100]:
            for signature in signatures:
                root = ElementTree.fromstring(space.draw(genotype, signature))
                assert root.tag == "{http://www.w3.org/2000/svg}svg"
                for element in root.iter():  # self-contained: nothing is fetched or run
                    assert not element.tag.endswith(("}script", "}image", "}foreignObject"))
                    assert not any(name.endswith("href") for name in element.attrib)

    def test_networks_run_and_learn(
        self, space: Space, members: list[Genotype], signatures: list[Signature]
    ) -> None:
        for index, genotype in enumerate(members[: self.built]):
            signature = signatures[index % len(signatures)]
            torch.manual_seed(0)
            network = with_graph(space.build(genotype, signature), signature)
            outputs = network(inputs_of(signature, 2))
            assert outputs.shape == (2, signature.n_outputs)
            outputs.square().mean().backward()
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None, f"{name} is not used"
                assert torch.isfinite(parameter.grad).all()

    def test_networks_are_built_on_the_meta_device(
        self, space: Space, members: list[Genotype], signatures: list[Signature]
    ) -> None:
        for signature in signatures:
            with torch.device("meta"):
                network = space.build(members[0], signature).eval()
                outputs = network(inputs_of(signature, 4))
            assert outputs.shape == (4, signature.n_outputs) and outputs.is_meta

    def test_equal_seeds_give_equal_weights(
        self, space: Space, members: list[Genotype], signatures: list[Signature]
    ) -> None:
        def weights(seed: int) -> list[torch.Tensor]:
            torch.manual_seed(seed)
            return list(space.build(members[0], signatures[0]).parameters())

        assert all(torch.equal(a, b) for a, b in zip(weights(1), weights(1), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(weights(1), weights(2), strict=True))

    def test_wrong_rank_is_a_proposal_error(self, space: Space, members: list[Genotype]) -> None:
        with pytest.raises(ProposalError):
            space.build(members[0], Signature(input_shape=(2, 3, 4, 5, 6), n_outputs=2))

    def test_exported_source_is_the_same_network(
        self, space: Space, members: list[Genotype], signatures: list[Signature], tmp_path: Path
    ) -> None:
        """The file runs alone in a fresh interpreter and computes what our module computes."""
        for index, genotype in enumerate(members[:8]):
            signature = signatures[index % len(signatures)]
            file = tmp_path / f"network{index}.py"
            file.write_text(space.source(genotype, signature), encoding="utf-8")
            scope: dict[str, Any] = {"__name__": "exported"}
            exec(compile(file.read_text(encoding="utf-8"), file, "exec"), scope)  # noqa: S102
            torch.manual_seed(index)
            ours = space.build(genotype, signature)
            theirs = scope["build"]()
            assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
                (k, v.shape) for k, v in theirs.state_dict().items()
            ]
            if index == 0:
                _compare_in_fresh_interpreter(file, ours.eval(), signature, tmp_path)
            theirs.load_state_dict(ours.state_dict())
            if signature.graph is not None:
                assert "set_context" in scope
            with_graph(ours, signature)
            with_graph(theirs, signature)
            inputs = inputs_of(signature, 3)
            with torch.no_grad():
                assert torch.equal(ours.eval()(inputs), theirs.eval()(inputs))

    def test_baselines(self, space: Space, signatures: list[Signature]) -> None:
        baselines = space.baselines()
        assert baselines
        for name, genotype in baselines.items():
            assert name == name.strip().lower()
            assert space.validate(genotype) == genotype
            for signature in signatures:
                space.build(genotype, signature)

    def test_pace(self, space: Space) -> None:
        """Far below the rates asked for (2,000 samples, 1,000 edits, 1,000 features a second) on purpose:
        it must catch a blunder, not a busy machine."""
        rng = random.Random(0)
        start = time.process_time()
        genotypes = [space.sample(rng) for _ in range(500)]
        for genotype in genotypes:
            space.mutate(genotype, rng)
            space.features(genotype)
        assert time.process_time() - start < 3.0


def conforms(value: object, schema: dict[str, Any], root: dict[str, Any] | None = None) -> bool:
    """Whether `value` is an instance of a schema of the strict subset that `_check_strict` admits.

    References are looked up in `root`, by default the schema itself.
    """
    root = schema if root is None else root
    if "$ref" in schema:
        return conforms(value, _resolved(schema, root), root)
    if "anyOf" in schema:
        return any(conforms(value, option, root) for option in schema["anyOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    kind = schema["type"]
    if kind == "object":
        return (
            isinstance(value, dict)
            and set(value) == set(schema["properties"])
            and all(conforms(value[name], part, root) for name, part in schema["properties"].items())
        )
    if kind == "array":
        return (
            isinstance(value, list)
            and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
            and all(conforms(item, schema["items"], root) for item in value)
        )
    if kind in ("integer", "number"):
        types = (int,) if kind == "integer" else (int, float)
        return isinstance(value, types) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "boolean": bool, "null": type(None)}[kind])


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return found


def _check_strict(schema: dict[str, Any], root: dict[str, Any] | None = None) -> None:
    is_root, root = root is None, schema if root is None else root
    assert not FORBIDDEN_KEYWORDS & set(schema), schema
    if is_root:
        for name, definition in schema.get("$defs", {}).items():
            assert f'"#/$defs/{name}"' in json.dumps(schema), f"{name} is defined for nothing"
            _check_strict(definition, root)
    else:
        assert "$defs" not in schema, "definitions belong to the root"
    if "$ref" in schema:
        assert set(schema) - {"$defs"} == {"$ref"}, "strict back-ends want references to stand alone"
        assert schema["$ref"].startswith("#/$defs/") and _resolved(schema, root)
        return
    if "anyOf" in schema:
        for option in schema["anyOf"]:
            _check_strict(option, root)
        return
    kind = schema["type"]
    assert kind in ("object", "array", "string", "number", "integer", "boolean", "null")
    if kind == "object":
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) == set(schema["properties"])
        for part in schema["properties"].values():
            _check_strict(part, root)
    if kind == "array":
        _check_strict(schema["items"], root)


def _spoil(value: object) -> None:
    """Replace every leaf below `value` in place."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    for key, part in list(entries):
        if isinstance(part, dict | list):
            _spoil(part)
        else:
            value[key] = "spoiled"  # type: ignore[index]


def _compare_in_fresh_interpreter(
    file: Path, network: torch.nn.Module, signature: Signature, folder: Path
) -> None:
    inputs = inputs_of(signature, 3)
    given, answer = folder / "given.safetensors", folder / "answer.safetensors"
    save_file({**network.state_dict(), "inputs": inputs}, given)
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN_EXPORTED, str(file), str(given), str(answer)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert torch.allclose(load_file(answer)["outputs"], network(inputs), atol=1e-5)
