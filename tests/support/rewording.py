"""Networks written in other words: the same function as another genotype that no text would recognise.

And, to judge by: a normal form that knows nothing of hashes, and a comparison of what modules compute.
"""

from __future__ import annotations

import ast
import copy
import json
import random
from collections.abc import Callable, Hashable
from typing import Any

import torch

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner import ProposalContext
from cambrian.agents.population.model import Candidate, Proposal
from cambrian.search_spaces import Genotype, Signature, Space

Reword = Callable[[Genotype, random.Random], Genotype | None]

_DEAD = {
    "attention": {"kernel": (3, 5, 7), "se": (0.0, 0.125, 0.5)},
    "conv": {"expansion": (1, 2, 4, 6)},
    "separable": {"expansion": (1, 2, 4, 6)},
    "residual": {"expansion": (1, 2, 4, 6)},
    "inverted": {},
}


def convnet(genotype: Genotype, rng: random.Random) -> Genotype | None:
    """Stages split or joined, genes that nothing reads set anew, keys in another order."""
    made = copy.deepcopy(genotype)
    stages = made["stages"]
    splits = [i for i, stage in enumerate(stages) if stage["depth"] > 1]
    if splits and len(stages) < 5:
        _split(stages, rng.choice(splits), rng)
    else:
        _join(stages)
    for stage in stages:
        for gene, values in _DEAD[stage["block"]].items():
            stage[gene] = rng.choice(values)
        if stage["depth"] == 1 and stage["downsample"] != "none":
            stage["downsample"] = rng.choice(("first", "last"))
    return _shuffled(made, rng)


def _split(stages: list[dict[str, Any]], at: int, rng: random.Random) -> None:
    stage = stages[at]
    first, second = dict(stage), dict(stage)
    first["depth"] = rng.randint(1, stage["depth"] - 1)
    second["depth"] = stage["depth"] - first["depth"]
    if stage["downsample"] == "first":
        second["downsample"] = "none"
    elif stage["downsample"] == "last":
        first["downsample"] = "none"
    stages[at : at + 1] = [first, second]


def _join(stages: list[dict[str, Any]]) -> None:
    """Make one stage of the first two that are one."""
    for i in range(len(stages) - 1):
        first, second = stages[i], stages[i + 1]
        changing = {"depth", "downsample"}
        equal = all(first[gene] == second[gene] for gene in first if gene not in changing)
        if not equal or first["depth"] + second["depth"] > 4:
            continue
        if second["downsample"] == "none" and first["downsample"] in ("none", "first"):
            stages[i : i + 2] = [{**first, "depth": first["depth"] + second["depth"]}]
            return


def convnet_form(genotype: Genotype) -> Hashable:
    """A canonical convnet as the blocks that it is made of, with the genes that they read."""
    blocks = []
    for stage in genotype["stages"]:
        halving = {"none": -1, "first": 0, "last": stage["depth"] - 1}[stage["downsample"]]
        dead = {"depth", "downsample", *_DEAD[stage["block"]]}
        live = tuple(sorted((gene, value) for gene, value in stage.items() if gene not in dead))
        blocks += [(*live, i == halving) for i in range(stage["depth"])]
    return json.dumps([genotype["stem"], blocks, genotype["head"]], sort_keys=True)


def cell(genotype: Genotype, rng: random.Random) -> Genotype | None:
    """A cell of NAS-Bench-201 with its inner nodes in the other order, or other operations on dead edges."""
    made = dict(genotype)
    dead = [edge for edge in made if _leads_nowhere(made, edge)]
    if dead:
        edge = rng.choice(dead)
        made[edge] = rng.choice(["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"])
    if made["e12"] == "none":
        made["e01"], made["e02"], made["e13"], made["e23"] = (made[e] for e in ("e02", "e01", "e23", "e13"))
    elif made["e12"] == "skip_connect" and made["e13"] == "none":  # node 2 is the sum of both edges anyway
        made["e01"], made["e02"] = made["e02"], made["e01"]
    return _shuffled(made, rng) if made != genotype else None


def _leads_nowhere(genotype: Genotype, edge: str) -> bool:
    """Whether the edge's end reaches no output, or its start no input, whatever stands on the edge."""
    on = {name for name, operation in genotype.items() if operation != "none"}
    to_1, to_2 = "e01" in on, "e02" in on or {"e01", "e12"} <= on
    from_2, from_1 = "e23" in on, "e13" in on or {"e12", "e23"} <= on
    nowhere = {"e01": not from_1, "e02": not from_2, "e12": not (to_1 and from_2), "e03": False}
    return {**nowhere, "e13": not to_1, "e23": not to_2}[edge]


def _shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: _shuffled(value[key], rng) for key in keys}
    return [_shuffled(item, rng) for item in value] if isinstance(value, list) else value


class Half:
    """An arm of whose proposals every second one is a copy of an earlier candidate in other words."""

    name = "half"
    control = False
    cheap = False
    reword: Reword = staticmethod(convnet)
    sample: Callable[[random.Random], Genotype] | None = None
    """Draws what is new; None asks the space."""

    def __init__(self, config: object = None, models: object = None) -> None:
        del config, models

    def ready(self, population: object) -> bool:
        return True

    async def propose(self, context: ProposalContext, n: int) -> list[Proposal]:
        rng = context.rng
        known = [c for c in context.population.recent(64) if c.identity is not None]
        if known and rng.random() < 0.5:
            for _ in range(20):
                original: Candidate = rng.choice(known)
                if (made := self.reword(original.genotype, rng)) is not None:
                    return [Proposal(arm=self.name, genotype=made, parents=(original.id,), edit="copy")]
        made = (self.sample or context.space.sample)(rng)
        return [Proposal(arm=self.name, genotype=made, edit="new")]

    async def close(self) -> None:
        return


def compute_alike(space: Space, first: Genotype, second: Genotype, signature: Signature) -> bool:
    """Whether the modules of two genotypes, given the same weights in order, give the same outputs.

    Both in training, with equal seeds, and in evaluation; on noise, in double precision.
    """
    outputs = []
    try:
        for genotype in (first, second):
            module = space.build(genotype, signature).double()
            for i, parameter in enumerate(module.parameters()):
                torch.manual_seed(i)
                torch.nn.init.normal_(parameter, mean=0.1, std=0.5)
            torch.manual_seed(0)
            inputs = torch.randn(4, *signature.input_shape, dtype=torch.float64)
            with torch.no_grad():
                torch.manual_seed(1)
                outputs.append([module.train()(inputs), module.eval()(inputs)])
    except ProposalError:
        return False
    return all(torch.allclose(a, b, rtol=1e-8, atol=1e-12) for a, b in zip(*outputs, strict=True))


# -- sources -------------------------------------------------------------------------------------------------

Form = tuple[str, tuple[tuple[int, str], ...]]
"""`flat` or `convolutions`, and the width and the activation of each layer."""
ACTIVATIONS = ("relu", "silu", "tanh", "sigmoid")
_MODULES = {"relu": "ReLU", "silu": "SiLU", "tanh": "Tanh", "sigmoid": "Sigmoid"}


class Sources:
    """Writes networks as source of `tests.support.code_space`, each in as many ways as it is asked to.

    Attributes:
        forms: what each source that was written computes, by its canonical text.
    """

    def __init__(self) -> None:
        self.forms: dict[str, Form] = {}

    def new(self, rng: random.Random) -> Genotype:
        """A network that is drawn at random."""
        layers = tuple((rng.randint(4, 24), rng.choice(ACTIVATIONS)) for _ in range(rng.randint(1, 3)))
        return self.written((rng.choice(("flat", "convolutions")), layers), rng)

    def again(self, genotype: Genotype, rng: random.Random) -> Genotype | None:
        """The same network in other words; None of a source that was not written here."""
        form = self.forms.get(genotype["source"])
        return None if form is None else self.written(form, rng)

    def written(self, form: Form, rng: random.Random) -> Genotype:
        """`form` with names, order, containers and idle operations drawn at random."""
        text = ast.unparse(ast.parse(_source(form, rng))) + "\n"
        self.forms[text] = form
        return {"source": text}


def _source(form: Form, rng: random.Random) -> str:
    kind, layers = form
    flat = kind == "flat"
    names = rng.sample(["alpha", "beta", "gamma", "delta", "block", "stage", "part", "lin", "proj", "out"], 5)
    listed, head, x = rng.random() < 0.5, names[3], rng.choice(["x", "inputs", "h", "signal"])
    before = ["int(torch.tensor(input_shape).prod())" if flat else "input_shape[0]"]
    before += [str(width) for width, _ in layers]
    made = [
        f"nn.Linear({given}, {width})" if flat else f"nn.Conv2d({given}, {width}, 3, padding=1)"
        for given, (width, _) in zip(before, layers, strict=False)
    ]
    built = [f"self.{head} = nn.Linear({layers[-1][0]}, n_outputs)"]
    if listed:
        built.append(f"self.{names[4]} = nn.ModuleList([{', '.join(made)}])")
    else:
        built += [f"self.{name} = {module}" for name, module in zip(names, made, strict=False)]
    built += ["self.idle = nn.Identity()", "self.spare = nn.Dropout(0.0)"]
    rng.shuffle(built)
    steps = []
    if flat:
        ways = (f"{x}.flatten(1)", f"{x}.reshape(len({x}), -1)", f"torch.flatten({x}, start_dim=1)")
        steps.append(f"{x} = {rng.choice(ways)}")
    for i, (_, activation) in enumerate(layers):
        layer = f"self.{names[4]}[{i}]" if listed else f"self.{names[i]}"
        ways = (f"nn.functional.{activation}({layer}({x}))", f"nn.{_MODULES[activation]}()({layer}({x}))")
        steps.append(f"{x} = {rng.choice(ways)}")
        idle = (
            f"{x} = self.idle({x})",
            f"{x} = {x} + 0",
            f"{x} = self.spare({x})",
            f"idle = {x} * 2",
            "pass",
        )
        steps.append(rng.choice(idle))
    if not flat:
        pooled = f"nn.functional.adaptive_avg_pool2d({x}, 1).flatten(1)"
        ways = (f"{x}.mean((2, 3))", pooled, f"{x}.flatten(2).mean(2)")
        steps.append(f"{x} = {rng.choice(ways)}")
    steps.append(f"return self.{head}({x})")
    return "\n".join(
        [
            "import torch",
            "from torch import nn",
            "class Network(nn.Module):",
            f"    width = {layers[0][0]}",
            f"    depth = {len(layers)}",
            f"    activation = {layers[0][1]!r}",
            "    def __init__(self, input_shape, n_outputs):",
            "        super().__init__()",
            *(f"        {line}" for line in built),
            f"    def forward(self, {x}):",
            *(f"        {line}" for line in steps),
        ]
    )
