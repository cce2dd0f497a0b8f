"""Identity: one text for all genotypes that compute, and learn, the same; different texts for all others.

The idea is to hash what a network does rather than how it is written (Gillard et al., arXiv:2302.05433): give
it weights and inputs that depend on nothing but its behaviour, run it, and hash what comes out. Two stages of
one block and one stage of two blocks are then one candidate, and so are pooling by mean and by maximum of a
map of one pixel.

Into the hash go
  - the space, its version, and the signature;
  - of each parameter its shape, how it is initialised, and whether it is trained. Parameters of one shape are
    in the order of their first use, so the order and names in which they were created do not matter;
  - the outputs of a training pass, with batch statistics and seeded dropout, for canonical weights in double
    precision: they change with whatever the network computes, down to a dropout rate;
  - momentum, epsilon and kind of batch norms, and the outputs of an evaluation pass wherever that could
    differ by more than those and dropout.

Where this evidence would be weak, because the outputs do not depend on the inputs or are not finite, other
weights are tried. Where it stays weak, or lacks what training depends on because gradients are cut (as by
`detach`), or would be dear because the network is huge, the identity is the hash of the canonical genotype:
that merges nothing.

Known limit: a gradient of one's own making (`torch.autograd.Function`) does not show.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from cambrian.sandbox.examination.meta import seeded
from cambrian.sandbox.examination.probe import PERIOD, build_for_probe, noise, probe
from cambrian.sandbox.examination.static import Examination, take_examination
from cambrian.search_spaces import Genotype, Signature, Space
from cambrian.search_spaces.recipes import architecture_of

FUNCTIONAL, STRUCTURAL = "f1", "g1"
"""Prefixes: hashed by function, or by canonical genotype. The number changes whenever the method does."""

MAX_FLOPS = 4e9
MAX_PARAMETERS = 20_000_000
"""Above these, for one pass over the probe, a network is hashed by its genotype."""

_DIGITS = 7
_ATTEMPTS = 3

_Slot = tuple[dict[str, nn.Parameter | None], str, int]
"""Where a parameter lives, and the `id` of the parameter that the trace saw there."""


def identity(
    space: Space, genotype: Genotype, signature: Signature, recipe: Mapping[str, Any] | None = None
) -> str:
    """The identity of a canonical genotype for inputs and outputs of `signature`, such as `f1:9c0f...`.

    Args:
        space: builds the network.
        genotype: canonical.
        signature: what the network takes and gives.
        recipe: fields in which its training differs from the task's recipe: what learns by another recipe is
            another candidate.

    Equal in every process. Last-bit differences between machines are rounded away; should one ever fall on
    the edge of a rounding step, two equal candidates count as different, which costs one evaluation.

    Raises:
        ProposalError: the genotype's shapes do not fit the signature.
        ValueError: the space holds code, which is never run outside a sandbox.
    """
    return _identity(space, genotype, signature, recipe, inside=False)


def identity_inside(
    space: Space, genotype: Genotype, signature: Signature, recipe: Mapping[str, Any] | None = None
) -> str:
    """`identity` for code as well: to be called in a sandbox only, as it runs what a model may have written.

    Raises:
        ProposalError: the genotype's shapes do not fit the signature.
    """
    return _identity(space, genotype, signature, recipe, inside=True)


def _identity(
    space: Space,
    genotype: Genotype,
    signature: Signature,
    recipe: Mapping[str, Any] | None,
    *,
    inside: bool,
) -> str:
    seen = take_examination(space, genotype, signature, inside=inside)
    about: tuple[object, ...] = (space.name, space.version, signature.input_shape, signature.n_outputs)
    if signature.n_ids is not None:  # left out elsewhere, so that the identities of earlier versions stay
        about += (signature.model_dump_json(),)
    if recipe:
        about += (sorted(recipe.items()),)
    evidence = _behaviour(seen, space, genotype, signature)
    if evidence is None:
        text = json.dumps(architecture_of(space, genotype), sort_keys=True, separators=(",", ":"))
        return f"{STRUCTURAL}:{_digest((about, text))}"
    return f"{FUNCTIONAL}:{_digest((about, evidence, _parameters(seen), seen.trace.norms))}"


def _digest(content: object) -> str:
    """Hex digest of nested tuples of text and numbers, by their representation."""
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()


def _parameters(seen: Examination) -> list[tuple[tuple[int, ...], list[object]]]:
    """Of each parameter what its canonical value does not show: by shape, in order of first use."""
    by_shape: dict[tuple[int, ...], list[object]] = {}
    for parameter in _in_order(seen):
        used = id(parameter) in seen.trace.used
        about = (seen.init.provenance(parameter), parameter.requires_grad, used)
        by_shape.setdefault(tuple(parameter.shape), []).append(about)
    return sorted(by_shape.items())


def _in_order(seen: Examination) -> Iterator[nn.Parameter]:
    """Parameters by first use, then the unused ones as they were created."""
    yield from seen.trace.used.values()
    yield from (p for p in seen.parameters if id(p) not in seen.trace.used)


def _behaviour(seen: Examination, space: Space, genotype: Genotype, signature: Signature) -> list[int] | None:
    """The quantised outputs under canonical weights; None where they are weak evidence or too dear."""
    # few samples of a large input, but enough for statistics of a batch to be more than signs
    batch = 4 if math.prod(signature.input_shape) <= 512 or seen.trace.narrowest < 2 else 2
    # nodes are probed on a small graph
    dear = signature.graph is None and seen.facts.flops * batch > MAX_FLOPS
    if dear or seen.facts.parameters > MAX_PARAMETERS or seen.trace.cuts:
        return None
    inputs = probe(batch, signature)
    real = _real_module(seen, space, genotype, signature)
    if real is None:
        return None
    module, slots = real
    twofold = _evaluates_differently(seen.modules)
    for attempt in range(_ATTEMPTS):
        values = _canonical_weights(seen, attempt)
        for home, name, key in slots:
            home[name] = values[key]
        _reset_statistics(module)
        liveness = _Liveness()
        try:
            with torch.no_grad(), liveness, seeded():
                outputs = [module(inputs)]
                if twofold:
                    outputs.append(module.eval()(inputs))
                    module.train()
        except Exception:  # what only fails on real numbers is for its training to tell, not for its identity
            return None
        found = [_quantised(output) for output in outputs]
        if liveness.alive and None not in found:
            return [number for numbers in found if numbers is not None for number in numbers]
    return None


def _real_module(
    seen: Examination, space: Space, genotype: Genotype, signature: Signature
) -> tuple[nn.Module, list[_Slot]] | None:
    """The module on the CPU in double precision, and where its parameters are still to be put.

    None when its parameters depend on how many nodes the graph has, so that it has none on a small one.
    """
    module, modules, keys = seen.module, seen.modules, {id(p): id(p) for p in seen.parameters}
    # batch statistics start from known values; whatever else a constructor computed calls for the real one
    if signature.graph is not None or any(
        _keeps_statistics(child) or _has_tensors(child) for child in modules
    ):
        with seeded():
            module = build_for_probe(space, genotype, signature).double()
        if [p.shape for p in module.parameters()] != [p.shape for p in seen.parameters]:
            return None
        modules = tuple(module.modules())
        keys = {id(real): id(p) for real, p in zip(module.parameters(), seen.parameters, strict=True)}
    slots = [
        (child._parameters, name, keys[id(parameter)])
        for child in modules
        for name, parameter in child._parameters.items()
        if parameter is not None
    ]
    return module, slots


def _keeps_statistics(child: nn.Module) -> bool:
    """Whether a module other than a batch norm has buffers."""
    return bool(child._buffers) and not isinstance(child, _BatchNorm)


def _has_tensors(child: nn.Module) -> bool:
    """Whether it holds tensors as plain attributes, which torch's own layers never do."""
    ours = not type(child).__module__.startswith("torch.")
    return ours and any(isinstance(value, Tensor) for value in vars(child).values())


def _reset_statistics(module: nn.Module) -> None:
    """Give every batch norm the statistics that it is born with, in double precision."""
    for child in module.modules():
        if isinstance(child, _BatchNorm) and child.running_mean is not None:
            child._buffers["running_mean"] = torch.zeros(child.num_features, dtype=torch.float64)
            child._buffers["running_var"] = torch.ones(child.num_features, dtype=torch.float64)
            child._buffers["num_batches_tracked"] = torch.zeros((), dtype=torch.long)


def _evaluates_differently(modules: Iterable[nn.Module]) -> bool:
    """Whether evaluation could differ from training by more than batch norm and dropout account for."""
    kinds = set()
    for child in modules:
        if _keeps_statistics(child):
            return True
        kinds.add(type(child))
    for kind in kinds - _MODES.keys():
        _MODES[kind] = _reads_mode(kind)
    return any(_MODES[kind] for kind in kinds)


_MODES: dict[type, bool] = {}


def _reads_mode(kind: type) -> bool:
    """Whether code of a module class other than torch's looks at `training`."""
    for base in kind.__mro__:
        if base.__module__.split(".")[0] == "torch" or base is object:
            continue
        for member in vars(base).values():
            code = getattr(member, "__code__", None)
            if code is not None and "training" in code.co_names:
                return True
    return False


class _Liveness(TorchFunctionMode):
    """Notices when an activation that is flat in places was met in flat places only.

    What leads to such an activation is then invisible in the outputs, as it would not be for other weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = True

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # the first few values nearly always tell already
        if func in _FLAT and _constant(result.flatten()[:256]) and _constant(result):
            self.alive = False
        return result


_FLAT = frozenset(
    {
        functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu6,
        functional.hardtanh, functional.hardsigmoid, functional.hardswish, functional.threshold, torch.clamp,
        Tensor.clamp, Tensor.clamp_, Tensor.clip, torch.clip,
    }
)  # fmt: skip


def _constant(values: Tensor) -> bool:
    low, high = values.aminmax()
    return bool(low == high)


def _canonical_weights(seen: Examination, attempt: int) -> dict[int, nn.Parameter]:
    """A value for each parameter, by its `id`, from its shape and rank among those of its shape alone."""
    values: dict[int, nn.Parameter] = {}
    ranks: dict[tuple[int, ...], int] = {}
    for parameter in _in_order(seen):
        shape = tuple(parameter.shape)
        ranks[shape] = rank = ranks.get(shape, 0) + 1
        make = _weights_kept if parameter.numel() <= _KEPT_SIZE else _weights
        values[id(parameter)] = make(shape, rank, attempt)
    return values


def _weights(shape: tuple[int, ...], rank: int, attempt: int) -> nn.Parameter:
    """The canonical value of the parameter number `rank` of `shape`, float64.

    Matrices and kernels keep the size of a signal (He et al., arXiv:1502.01852). Vectors, which shift and
    scale channels, and the first row of a matrix are positive, so that no rectified layer dies as a whole.
    Every fourth element of a vector is large, so that activations show where they saturate.
    """
    drawn = noise(shape, _offset(shape, rank, attempt))
    if len(shape) > 1:
        value = drawn * math.sqrt(6 * shape[0] / drawn.numel())
        value[0].abs_()
    else:
        value = torch.exp(1.1 * drawn - 0.2)
        value.view(-1)[1::4] *= 5
    return nn.Parameter(value, requires_grad=False)


_KEPT_SIZE = 1024
_weights_kept = functools.lru_cache(maxsize=4096)(_weights)
"""Small parameters recur from candidate to candidate; nothing changes them in place."""


def _offset(shape: tuple[int, ...], rank: int, attempt: int) -> int:
    key = hashlib.blake2b(repr((shape, rank, attempt)).encode(), digest_size=8).digest()
    return int.from_bytes(key, "little") % PERIOD


def _quantised(outputs: Tensor) -> list[int] | None:
    """Outputs `(batch, n_outputs)` as a few integers; None when they say little about the function.

    Scale and direction are kept apart, each to about seven digits: noise in the last bits of outputs, a
    million times smaller, almost never shifts a rounding. A handful of random projections of all outputs
    tells functions apart as well as all outputs would, with fewer roundings at risk.
    """
    if not isinstance(outputs, Tensor) or outputs.dtype != torch.float64:
        return None
    flat = outputs.flatten()
    scale = float(flat.square().mean().sqrt())
    if not math.isfinite(scale) or scale < 1e-30:
        return None
    if float((outputs - outputs[:1]).abs().max()) < 1e-3 * scale:
        return None
    weights = noise((8, flat.numel()), 7)
    numbers = (weights @ (flat / scale)) / math.sqrt(flat.numel())
    return [round(number * 10**_DIGITS) for number in (math.log(scale), *numbers.tolist())]
