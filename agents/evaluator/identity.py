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
  - momentum and epsilon of batch norms, and the outputs of an evaluation pass wherever that could differ in
    more than by those.

Where this evidence would be weak, because the outputs do not depend on the inputs or are not finite, or dear,
because the network is huge, the identity is the hash of the canonical genotype: that merges nothing.

Known limit: a space whose blocks cut gradients (`detach`) would need their gradients in the hash.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cambrian.agents.evaluator.static import Examination, take_examination
from cambrian.search_spaces import Genotype, Signature, Space

FUNCTIONAL, STRUCTURAL = "f1", "g1"
"""Prefixes: hashed by function, or by canonical genotype. The number changes whenever the method does."""

MAX_FLOPS = 4e9
MAX_PARAMETERS = 20_000_000
"""Above these, for one pass over the probe, a network is hashed by its genotype."""

_DIGITS = 7
_SEED = 20230210
_generator = threading.Lock()


def identity(space: Space, genotype: Genotype, signature: Signature) -> str:
    """The identity of a canonical genotype for inputs and outputs of `signature`, such as `f1:9c0f...`.

    Equal in every process. Last-bit differences between machines are rounded away; should one ever fall on
    the edge of a rounding step, two equal candidates count as different, which costs one evaluation.

    Raises:
        ProposalError: the genotype's shapes do not fit the signature.
        ValueError: the space holds code, which is never run outside a sandbox.
    """
    seen = take_examination(space, genotype, signature)
    batch = _batch(signature)
    evidence: list[int] | None = None
    if seen.facts.flops * batch <= MAX_FLOPS and seen.facts.parameters <= MAX_PARAMETERS:
        evidence = _behaviour(seen, space, genotype, signature, batch)
    about = (space.name, space.version, signature.input_shape, signature.n_outputs)
    if evidence is None:
        text = json.dumps(genotype, sort_keys=True, separators=(",", ":"))
        return f"{STRUCTURAL}:{_digest((about, text))}"
    return f"{FUNCTIONAL}:{_digest((about, evidence, _parameters(seen), seen.trace.norms))}"


def _digest(content: object) -> str:
    """Hex digest of nested tuples of text and numbers, by their representation."""
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()


def _batch(signature: Signature) -> int:
    """Samples of the probe: few for large inputs, but enough for batch statistics on small maps."""
    return 4 if math.prod(signature.input_shape) <= 512 else 2


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
    yield from (p for p in seen.module.parameters() if id(p) not in seen.trace.used)


def _behaviour(
    seen: Examination, space: Space, genotype: Genotype, signature: Signature, batch: int
) -> list[int] | None:
    """The quantised behaviour under canonical weights; None where it would be weak evidence."""
    values = _canonical_weights(seen)
    module = seen.module
    if not _fill(module, values):
        # some tensors are computed by the constructor: build it in earnest
        names = {id(p): name for name, p in seen.module.named_parameters()}
        with _generator, torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            module = space.build(genotype, signature).double()
        real = dict(module.named_parameters())
        _fill(module, {id(real[names[key]]): value for key, value in values.items()})
    inputs = 1.7 * _noise(batch * math.prod(signature.input_shape), 0)
    inputs = inputs.view(batch, *signature.input_shape)
    found: list[int] = []
    with torch.no_grad():
        with _generator, torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            outputs = [module.train()(inputs)]
        if _evaluates_differently(module):
            outputs.append(module.eval()(inputs))
    for output in outputs:
        if output.dtype != torch.float64 or (numbers := _quantised(output)) is None:
            return None
        found += numbers
    return found


def _evaluates_differently(module: nn.Module) -> bool:
    """Whether evaluation could differ from training by more than batch norm and dropout account for."""
    return any(_reads_mode(type(child)) for child in module.modules())


@functools.cache
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


def _canonical_weights(seen: Examination) -> dict[int, Tensor]:
    """A value for each parameter, by its `id`, from its shape and rank among those of its shape alone.

    Matrices and kernels keep the size of a signal (He et al., arXiv:1502.01852). Vectors, which shift and
    scale channels, are positive, so that few rectified units die, and span an order of magnitude, so that
    saturating activations show where they bend.
    """
    values: dict[int, Tensor] = {}
    ranks: dict[tuple[int, ...], int] = {}
    for parameter in _in_order(seen):
        shape = tuple(parameter.shape)
        ranks[shape] = rank = ranks.get(shape, 0) + 1
        noise = _noise(parameter.numel(), _offset(shape, rank)).view(shape)
        if len(shape) > 1:
            values[id(parameter)] = noise * math.sqrt(6 * shape[0] / parameter.numel())
        else:
            values[id(parameter)] = torch.exp(1.35 * noise - 0.25)
    return values


def _fill(module: nn.Module, values: dict[int, Tensor]) -> bool:
    """Put `values` in place of the parameters, and fresh statistics into batch norms.

    Returns:
        False when some other tensor is left on the meta device.
    """
    complete = True
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                child._parameters[name] = nn.Parameter(values[id(parameter)], requires_grad=False)
        for name, buffer in child._buffers.items():
            if buffer is None or not buffer.is_meta:
                continue
            if not isinstance(child, _BatchNorm):
                complete = False
            elif name == "num_batches_tracked":
                child._buffers[name] = torch.zeros((), dtype=torch.long)
            else:
                start = torch.ones if name == "running_var" else torch.zeros
                child._buffers[name] = start(buffer.shape, dtype=torch.float64)
    return complete


def _offset(shape: tuple[int, ...], rank: int) -> int:
    key = hashlib.blake2b(repr((shape, rank)).encode(), digest_size=8).digest()
    return int.from_bytes(key, "little") % 65_521


def _noise(n: int, offset: int) -> Tensor:
    """`n` fixed pseudo-random numbers in (-1, 1), float64, a window on one long series."""
    size = 1 << max(17, (n + offset).bit_length())
    return _series(size)[offset : offset + n]


@functools.lru_cache(maxsize=2)
def _series(size: int) -> Tensor:
    # numpy promises this stream for PCG64's raw output; shorter series are beginnings of longer ones
    raw = np.random.PCG64(_SEED).random_raw(size)
    return torch.from_numpy((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0)


def _quantised(outputs: Tensor) -> list[int] | None:
    """Outputs `(batch, n_outputs)` as a few integers; None when they say little about the function.

    Scale and direction are kept apart, each to about seven digits: noise in the last bits of outputs, a
    million times smaller, almost never shifts a rounding. A handful of random projections of all outputs
    tells functions apart as well as all outputs would, with fewer roundings at risk.
    """
    flat = outputs.flatten()
    scale = float(flat.square().mean().sqrt())
    if not math.isfinite(scale) or scale < 1e-30:
        return None
    if float((outputs - outputs[:1]).abs().max()) < 1e-3 * scale:
        return None
    weights = _noise(8 * flat.numel(), 7).view(8, flat.numel())
    numbers = (weights @ (flat / scale)) / math.sqrt(flat.numel())
    return [round(number * 10**_DIGITS) for number in (math.log(scale), *numbers.tolist())]
