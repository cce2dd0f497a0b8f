"""Motifs of a computation: counts of what stands where in a graph of operations, and its functional size.

A motif is a label of an operation with what feeds it, in the manner of Weisfeiler and Lehman (Shervashidze et
al. 2011; as a kernel over architectures: Ru et al. 2020, arXiv 2006.07556), or a path from the input to the
output. Only operations that the output depends on count, and a sum is no operation but a set of terms:
networks that differ in dead branches, identities or the order of summands have the same motifs.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

INPUT = "in"
_LEVELS = 3
_MOST_PATHS = 32
"""Different paths to one operation up to which they are told apart."""
_LONGEST = 120
"""Characters of a label; longer ones end in a digest."""

Terms = tuple[int, ...]
"""Operations whose results are added up; empty is zero."""


class Summary(NamedTuple):
    """What a part of a network does, whatever its widths.

    Attributes:
        live: operations that the output depends on, the input left out.
        motifs: `0|word`, `1|word(what feeds it)`, `2|...`, `path|word>word`; `=|...` is the whole part.
        deepest: operations with weights on the longest path from the input to the output.
        shallowest: those on the shortest.
        mean: their mean over all paths.
        log_paths: natural logarithm of the number of paths.
        skips: paths without any operation.
        ends: what its successors see of it: the last operations with weights before each summand.
    """

    live: tuple[int, ...]
    motifs: dict[str, float]
    deepest: float
    shallowest: float
    mean: float
    log_paths: float
    skips: int
    ends: str


class Operations:
    """A graph of operations under construction; number 0 is the input.

    Attributes:
        words: what each operation is, without its widths.
        inputs: the terms that each takes, as a sorted tuple.
        weighted: whether each has weights.
    """

    __slots__ = ("inputs", "weighted", "words")

    def __init__(self) -> None:
        self.words: list[str] = [INPUT]
        self.inputs: list[Terms] = [()]
        self.weighted: list[bool] = [False]

    def add(self, word: str, terms: Terms, weighted: bool = False) -> Terms:
        """What leaves the operation `word` on the sum of `terms`: zero of zero."""
        if not terms:
            return ()
        self.words.append(word)
        self.inputs.append(terms)
        self.weighted.append(weighted)
        return (len(self.words) - 1,)

    def key(self, output: Terms) -> object:
        """Equal for graphs with equal summaries."""
        return (tuple(self.words), tuple(self.inputs), tuple(self.weighted), output)

    def summary(self, output: Terms) -> Summary:
        """The summary of what `output` depends on."""
        live = self._live(output)
        motifs: Counter[str] = Counter()
        labels: dict[int, tuple[str, ...]] = {0: (INPUT,) * _LEVELS}
        whole: dict[int, str] = {0: INPUT}
        shown: dict[int, str] = {0: INPUT}
        paths: dict[int, Counter[str] | None] = {0: Counter({"": 1})}
        counts: dict[int, float] = {0: 1.0}
        far, near, mean = {0: 0.0}, {0: 0.0}, {0: 0.0}
        for i in live:
            word, terms, own = self.words[i], self.inputs[i], float(self.weighted[i])
            labels[i] = (word, *(_call(word, [labels[t][k] for t in terms]) for k in range(_LEVELS - 1)))
            for level, label in enumerate(labels[i]):
                motifs[f"{level}|{label}"] += 1
            whole[i] = _call(word, [whole[t] for t in terms])
            before = next((shown[t] for t in terms if t), INPUT)
            shown[i] = word if own or before == INPUT else before
            paths[i] = _joined([paths[t] for t in terms], word)
            counts[i] = sum(counts[t] for t in terms)
            far[i], near[i] = own + max(far[t] for t in terms), own + min(near[t] for t in terms)
            mean[i] = own + sum(mean[t] * counts[t] for t in terms) / counts[i]
        if not output:
            return Summary((), {"0|dead": 1.0}, 0.0, 0.0, 0.0, 0.0, 0, "dead")
        motifs[f"0|{_call('out', [labels[t][0] for t in output])}"] += 1
        motifs[f"1|{_call('out', [labels[t][1] for t in output])}"] += 1
        motifs[f"=|{_call('out', [whole[t] for t in output])}"] += 1
        for path, times in (_joined([paths[t] for t in output], "") or {}).items():
            motifs[f"path|{path or 'skip'}"] += times
        total = sum(counts[t] for t in output)
        return Summary(
            tuple(live),
            {label: float(times) for label, times in motifs.items()},
            max(far[t] for t in output),
            min(near[t] for t in output),
            sum(mean[t] * counts[t] for t in output) / total,
            math.log(total),
            output.count(0),
            _call("", [shown[t] for t in output]),
        )

    def _live(self, output: Terms) -> list[int]:
        """What `output` depends on, in order, the input left out."""
        needed, stack = set(output), list(output)
        while stack:
            for term in self.inputs[stack.pop()]:
                if term not in needed:
                    needed.add(term)
                    stack.append(term)
        return sorted(needed - {0})


def chain_motifs(words: Sequence[str]) -> Counter[str]:
    """Motifs of operations one after the other, each seen with up to two before it."""
    found: Counter[str] = Counter()
    before = [INPUT, INPUT]
    for word in words:
        for level in range(_LEVELS):
            found[f"{level}|{_short('>'.join([*before[len(before) - level :], word]))}"] += 1
        before = [before[-1], word]
    return found


def _call(word: str, terms: list[str]) -> str:
    terms.sort()
    return _short(f"{word}({'+'.join(terms)})")


def _joined(arriving: Sequence[Counter[str] | None], word: str) -> Counter[str] | None:
    """Paths that arrive, each longer by `word`; None where there are too many."""
    found: Counter[str] = Counter()
    for paths in arriving:
        if paths is None:
            return None
        for path, times in paths.items():
            found[_short(f"{path}>{word}") if path and word else path or word] += times
    return found if len(found) <= _MOST_PATHS else None


def _short(label: str) -> str:
    if len(label) <= _LONGEST:
        return label
    digest = hashlib.blake2b(label.encode(), digest_size=6).hexdigest()
    return f"{label[: _LONGEST - 16]}..~{digest}"
