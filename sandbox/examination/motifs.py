"""Motifs of a network's computation graph: small patterns of operations, counted.

One forward pass is written down as a graph: nodes are operations (`conv3x3`, `relu`, `add`), edges are the
flow of data. What does not lead to the output is left out, and so is what changes nothing: reshapes, dropout,
a factor of 1, a sum with zeros. Then every node is named by the operations that lead to it, up to two steps
back, and equal names are counted: the Weisfeiler-Lehman subtree features of Shervashidze et al. (JMLR 2011),
of which Ru et al. (arXiv 2006.07556) make a kernel for architecture search. Names read in the direction of
the data, `conv3x3>relu>add`; what is summed or joined stands in brackets, `(conv3x3>bn|relu)>add`.

This works for any module, generated code included (inside a sandbox, which is where code may run).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cambrian.sandbox.examination.operations import (
    DROPOUT,
    EMPTY,
    QUERIES,
    RESHAPING,
    ZERO_AT_ZERO,
    dropout_rate,
    kind_of,
    picks,
    plain_name,
    sizes_of,
)
from cambrian.sandbox.examination.rules import ForwardTrace
from cambrian.search_spaces import Signature

STEPS = 2
"""How far back a name reaches."""
MAX_NODES = 20_000
"""Operations that are written down, at most: a loop over many steps is known by its first ones."""
MAX_MOTIFS = 4096
LONGEST = 100
"""Characters of a name; the end of a longer one is replaced by its hash."""

_BATCH = 2
_INPUT, _ZERO = 0, -1


def motifs(module: nn.Module, signature: Signature, steps: int = STEPS) -> dict[str, float]:
    """How often each motif occurs in `module`, equal in every process.

    Args:
        module: on the meta device or on the CPU, where it is run once on two samples of zeros. It is left as
            it was: the pass is one of evaluation, without gradients.
        signature: what the module takes.
        steps: how far back names reach.

    Returns:
        Counts by name, at most `MAX_MOTIFS`, the shortest names where there are more: operations, their
        widths (`conv3x3@32`), the maps on which weights work (`map~8`), and what leads to operations.

    Raises:
        Exception: whatever the module raises on an input that fits the signature.
    """
    trace = trace_graph(module, signature)
    counts = Counter(trace.sizes)
    labels = trace.kinds
    counts.update(labels[node] for node in trace.nodes)
    for _ in range(steps):
        longer = list(labels)
        for node in trace.nodes:
            if trace.sources[node]:
                leading = sorted(labels[source] for source in trace.sources[node])
                before = leading[0] if len(leading) == 1 else f"({'|'.join(leading)})"
                longer[node] = _bounded(f"{before}>{trace.kinds[node]}")
        # a name that has not grown reaches back to the input, and is counted already
        counts.update(longer[node] for node in trace.nodes if longer[node] != labels[node])
        labels = longer
    kept = sorted(counts, key=lambda name: (len(name), name))[:MAX_MOTIFS]
    return {name: float(counts[name]) for name in sorted(kept)}


class Graph(TorchFunctionMode):
    """Rides along one forward pass and writes down its operations; see `trace_graph`.

    Attributes:
        kinds: what each node does; node 0 is the input.
        sources: of each node the nodes whose outputs it takes, sums of sums as one.
        nodes: those that the output depends on, in order.
        sizes: coarse sizes of what has weights, and dropout.
    """

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.kinds = ["input"]
        self.sources: list[tuple[int, ...]] = [()]
        self.nodes: list[int] = []
        self.sizes: list[str] = []
        self._sized: dict[int, tuple[str, ...]] = {}
        self._made = {id(inputs): _INPUT}
        self._kept = [inputs]  # or the id of one could be given to another
        self._dropouts = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.__name__
        if name not in QUERIES and len(self.kinds) < MAX_NODES:
            self._note(name, args, kwargs, result)
        return result

    def close(self, output: Any) -> None:
        """Keep what leads to `output`, and join sums that only feed another sum."""
        ends = [self._made[id(t)] for t in _tensors((output,)) if self._made.get(id(t), _ZERO) != _ZERO]
        uses = Counter(source for sources in self.sources for source in sources)
        for node in range(len(self.kinds)):
            if self.kinds[node] == "add":
                self.sources[node] = tuple(self._summands(node, uses))
        alive: set[int] = set()
        # a loop that was not written down to its end leads nowhere
        todo = ends or list(range(len(self.kinds)))
        while todo:
            node = todo.pop()
            if node not in alive:
                alive.add(node)
                todo.extend(self.sources[node])
        self.nodes = sorted(alive)
        self.sizes = [size for node in self.nodes for size in self._sized.get(node, ())]
        self.sizes += ["dropout"] * self._dropouts
        self._kept.clear()
        self._made.clear()

    def _summands(self, node: int, uses: Counter[int]) -> Iterator[int]:
        for source in self.sources[node]:
            if self.kinds[source] == "add" and uses[source] == 1:
                yield from self.sources[source]  # earlier ones are joined already
            else:
                yield source

    def _note(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        taken = [*_tensors(args), *_tensors(kwargs.values())]
        made = list(_tensors((result,)))
        if not made:
            if name == "__setitem__":
                made = taken[:1]
            else:
                return
        name = plain_name(name)
        sources = [self._made[id(t)] for t in taken if id(t) in self._made]
        weights = next((t for t in taken if type(t) is nn.Parameter and t.dim() > 1), None)
        learned = weights is not None or any(type(t) is nn.Parameter for t in taken)
        if not sources and not learned and name not in EMPTY:
            return  # a constant, such as a mask or the features of a graph's nodes
        target = self._known(name, args, kwargs, sources, learned, made[0])
        if target is None:
            kind = kind_of(name, args, kwargs, weights, learned, made[0])
            self.kinds.append(kind)
            self.sources.append(tuple(source for source in sources if source != _ZERO))
            target = len(self.kinds) - 1
            if weights is not None:
                self._sized[target] = sizes_of(kind, made[0])
        for tensor in made:
            self._made[id(tensor)] = target
            self._kept.append(tensor)

    def _known(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        sources: Sequence[int],
        learned: bool,
        made: Tensor,
    ) -> int | None:
        """The node that the result is already, where the operation changes nothing; None for a new node."""
        if name in EMPTY:
            return _ZERO
        if not sources:
            return None
        if name in DROPOUT:
            self._dropouts += dropout_rate(args, kwargs) > 0
            return sources[0]
        if name in RESHAPING or (name == "getitem" and not picks(args)):
            return sources[0]
        if name == "pad" and made.shape == args[0].shape:
            return sources[0]
        if learned:
            return None
        numbers = [value for value in args if isinstance(value, int | float)]
        if name == "mul" and (numbers == [0] or _ZERO in sources):
            return _ZERO
        if (name in ("mul", "div") and numbers == [1]) or (name in ("add", "sub") and numbers == [0]):
            return sources[0]
        if name == "add" and _ZERO in sources and not kwargs:
            return next((source for source in sources if source != _ZERO), _ZERO)
        if name in ZERO_AT_ZERO and sources == [_ZERO]:
            return _ZERO
        return None


def trace_graph(module: nn.Module, signature: Signature) -> Graph:
    """The computation graph of one forward pass of `module`; see `motifs`."""
    tensors = [*module.parameters(), *module.buffers()]
    device = torch.device("meta") if any(tensor.is_meta for tensor in tensors) else torch.device("cpu")
    real = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
    kind = real if signature.n_ids is None else torch.int64
    inputs = torch.zeros((_BATCH, *signature.input_shape), dtype=kind, device=device)
    graph = Graph(inputs)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_evaluating(module))
        if device.type == "meta":  # torch's own meta kernels are slow
            stack.enter_context(ForwardTrace())
        stack.enter_context(graph)
        output = module(inputs)
    graph.close(output)
    return graph


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    before = [(child, child.training) for child in module.modules()]
    for child, _ in before:
        child.training = False
    try:
        yield
    finally:
        for child, training in before:
            child.training = training


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _bounded(name: str) -> str:
    if len(name) <= LONGEST:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[: LONGEST - 10]}..{digest}"
