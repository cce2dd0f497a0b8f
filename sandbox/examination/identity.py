"""Identity: one text for all genotypes that compute, and learn, the same; different texts for all others.

The idea is to hash what a network does rather than how it is written (Gillard et al., arXiv:2302.05433): give
it weights and inputs that depend on nothing but its behaviour, run it, and hash what comes out. Two stages of
one block and one stage of two blocks are then one candidate, and so are pooling by mean and by maximum of a
map of one pixel, sums in another order, and a network with and without a branch that is multiplied by zero.

It is run on two probes of their own, each with weights of its own, in double precision:
  - A, in which all parameters of one form get one value, whatever their order. From it comes the role of each
    parameter: how large the data was that it met and, where that leaves several alike, a few digits of its
    gradient;
  - B, in which a parameter's value comes from its form and its role. Order of use decides only between
    parameters that probe A could not tell apart, such as two equal layers side by side, where it mostly
    changes nothing.
Into the hash go
  - the space, its version, and the signature;
  - outputs of both passes, with batch statistics and seeded dropout: they change with whatever the network
    computes, down to a dropout rate;
  - of each parameter that the outputs depend on its form, first values and role, and whether it is trained;
  - momentum, epsilon and kind of batch norms, and the outputs of an evaluation pass wherever that could
    differ by more than those and dropout;
  - for code, and where a module cuts or makes gradients itself (`detach`, `no_grad`, `autograd.Function`),
    the gradient of every parameter: of plain operations, gradients say no more than outputs do.

What is one and what is not: linear steps without parameters, such as pooling by mean, may be split, merged
and moved through sums; a matrix may be written as a kernel that covers its whole input, or as one of 1x1.
What is multiplied by the number 0 is not there, nor are the layers before it, and layers with nothing but
zeros to work on pass zeros, though a bias of theirs could learn a constant. Two matrices in a row are not
merged into their product: they learn differently. Nor is a factor before a batch norm dropped: by its
epsilon, it is not quite without effect.

Pictures are shrunk for the probes as far as every window still fits into its map, and only for networks of
layers that do to a part of a picture what they do to the whole; where samples meet in batch norms only, a
single one is enough. Channels stay as they are: among few of them values meet zero by chance, and there a
gradient hangs on the order of a sum.

Where this evidence would be weak, because outputs are not finite or activations flat, other weights are
tried. Where it stays weak, or would be dear because the network is huge, the identity is the hash of the
canonical genotype, for code with its syntax tree in place of its text.

Known limits: dropout in branches that are written in another order draws other masks, which splits them; and
a network that is huge and dead, or constant but for thresholds, is hashed by its genotype.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cambrian.sandbox.examination.evidence import behaviour
from cambrian.sandbox.examination.static import take_examination
from cambrian.search_spaces import Genotype, ProposalError, Signature, Space
from cambrian.search_spaces.recipes import architecture_of

FUNCTIONAL, STRUCTURAL = "f2", "g2"
"""Prefixes: hashed by function, or by canonical genotype. The number changes whenever the method does."""


def identity(
    space: Space, genotype: Genotype, signature: Signature, recipe: Mapping[str, Any] | None = None
) -> str:
    """The identity of a canonical genotype for inputs and outputs of `signature`, such as `f2:9c0f...`.

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
    about: tuple[object, ...] = (space.name, space.version, signature.model_dump_json())
    if recipe:
        about += (sorted(recipe.items()),)
    try:
        seen = take_examination(space, genotype, signature, inside=inside)
        evidence = behaviour(seen, space, genotype, signature)
    except ProposalError:
        # code may look at numbers, which the meta device has not: then only what it says is known
        if not inside or not _runs(space, genotype, signature):
            raise
        evidence = None
    if evidence is not None:
        return f"{FUNCTIONAL}:{_digest((about, evidence))}"
    architecture = architecture_of(space, genotype)
    told = _syntax(architecture) if space.kind == "code" else architecture
    return f"{STRUCTURAL}:{_digest((about, json.dumps(told, sort_keys=True, separators=(',', ':'))))}"


def _runs(space: Space, genotype: Genotype, signature: Signature) -> bool:
    """Whether the real network takes a few samples."""
    import torch

    from cambrian.sandbox.examination.probe import probe

    if signature.graph is not None:
        return False
    samples = probe(2, signature)
    try:
        with torch.no_grad():
            outputs = space.build(genotype, signature)(samples if signature.n_ids else samples.float())
    except Exception:  # whatever generated code raises
        return False
    return isinstance(outputs, torch.Tensor) and outputs.shape == (2, signature.n_outputs)


def _digest(content: object) -> str:
    """Hex digest of nested tuples of text and numbers, by their representation."""
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()


def _syntax(value: Any) -> Any:
    """A genotype of code with the syntax tree in place of each source: comments and layout do not count."""
    if isinstance(value, Mapping):
        return {key: _syntax(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_syntax(each) for each in value]
    if not isinstance(value, str) or "\n" not in value:
        return value
    try:
        return ast.dump(ast.parse(value))
    except (SyntaxError, ValueError, RecursionError):
        return value
