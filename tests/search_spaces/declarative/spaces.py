"""Small spaces that the tests of genotypes share, and every raw derivation of a grammar."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.grammar import KIND, Domain, Options, Repeat, Scalar
from cambrian.search_spaces.declarative.loading import load
from tests.search_spaces.declarative.folder import write_space

HEAD = "- GlobalPool\n          - Linear: {out: =n_outputs}"

STAGES = f"""
    network:
      fields:
        stem: {{choice: [4, 8, 12], default: 8}}
        stages: {{repeat: stage, min: 1, max: 3}}
        head: {{fields: {{dropout: {{choice: [0.0, 0.3], default: 0.0}}, wide: {{boolean: true}}}}}}
      require:
        - rule: sum(s.halve for s in stages) <= 2
          else: at most 2 stages may halve
      build:
          - ConvBlock: {{out: =stem, kernel: 3, activation: relu}}
          - stages
          {HEAD}
    stage:
      fields:
        block: [conv, inverted]
        width: {{log_integer: [4, 32], about: channels of the stage}}
        depth: {{integer: [1, 3], default: 1}}
        expansion: {{choice: [1, 2, 4], when: block == 'inverted', otherwise: 1}}
        halve: {{boolean: true, default: false}}
        activation: activation
      require:
        - rule: width < 32 or depth < 3
          else: stages of width 32 have at most 2 blocks
      build:
        - repeat: depth
          index: i
          body:
            switch: block
            cases:
              conv:
                ConvBlock:
                  out: =width
                  kernel: 3
                  activation: =activation
                  stride: =2 if halve and i == 0 else 1
              inverted:
                InvertedBlock:
                  out: =width
                  kernel: 3
                  expansion: =expansion
                  activation: =activation
                  stride: =2 if halve and i == 0 else 1
"""

TREES = f"""
    network:
      fields: {{body: node}}
      build:
          - body
          {HEAD}
    node:
      about: part of the network
      options:
        conv:
          fields: {{width: [4, 8]}}
          build: {{ConvNorm: {{out: =width, kernel: 3}}}}
        chain:
          fields: {{first: node, second: node}}
          build: [first, second]
        add:
          fields: {{left: node, right: node}}
          build:
            - parallel: [left, right]
"""


def stages(folder: Path, **top: Any) -> Definition:
    """Stages with conditions, lists and shared genes; `genes` is set."""
    top.setdefault("genes", "{activation: [relu, silu, gelu]}")
    return load(write_space(folder, STAGES, **top))


def trees(folder: Path, depth: int = 4, **top: Any) -> Definition:
    """Trees whose sums want equal shapes, at most `depth` rules deep."""
    return load(write_space(folder, TREES, max_depth=depth, **top))


def flat(folder: Path, fields: str, **top: Any) -> Definition:
    """One record with `fields`, one a line, which builds the same whatever they say."""
    indented = "\n".join(f"        {line}" for line in dedent(fields).strip().splitlines())
    rules = f"""
    network:
      fields:
{indented}
      build:
          {HEAD}
"""
    return load(write_space(folder, rules, **top))


def derivations(domain: Domain, left: int, named: set[int]) -> Iterator[Any]:
    """Every derivation of `domain` before folding, in which at most `left` rules are nested."""
    if isinstance(domain, Scalar):
        yield from domain.values
        return
    if isinstance(domain, Repeat):
        items = list(derivations(domain.item, left, named))
        for length in range(domain.least, domain.most + 1):
            yield from map(list, itertools.product(items, repeat=length))
        return
    left -= id(domain) in named
    if left < 0:
        return
    for record in domain.cases.values() if isinstance(domain, Options) else (domain,):
        parts = [list(derivations(field.domain, left, named)) for field in record.fields]
        head = {} if record.kind is None else {KIND: record.kind}
        for values in itertools.product(*parts):
            yield head | dict(zip((field.name for field in record.fields), values, strict=True))


def all_derivations(definition: Definition) -> list[Any]:
    """Every derivation of a grammar before folding."""
    grammar = definition.grammar
    named = set(map(id, grammar.rules.values()))
    found = derivations(grammar.start, grammar.max_depth, named)
    return [copy.deepcopy(each) for each in found]  # they share parts
