"""Behaviour checks: what a network does on a few real samples, before anything is trained.

Each check runs the real module, freshly built, on the CPU. Checks that compare outputs use a network whose
weights were shaken a little: a last layer that starts at zero would hide all there is to see. Batch norms are
in eval mode wherever samples must not see each other.

    output-shape        (n, n_outputs) for 1, 2 and 5 samples
    input-sizes         which other sizes of images, or lengths of sequences, it takes
    finite              outputs and gradients
    determinism         equal passes give equal outputs
    gradients           which parameters get none
    batch-independence  whether a sample's output depends on its neighbours
    train-eval          how far outputs in training are from those in eval mode, dropout aside
    causality, growth   of sequences, see the modules of these names

Exceptions of the network's own pass through: who raises on an ordinary batch cannot be trained.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from cambrian.sandbox.examination.causality import causality
from cambrian.sandbox.examination.growth import growth
from cambrian.sandbox.examination.report import ExamineSpec, Finding, is_sequence
from cambrian.sandbox.examination.subject import (
    SAMPLES,
    SEED,
    Subject,
    difference,
    evaluated,
    failed,
    one_line,
    shake,
    strange,
)

BATCHES = (1, 2, 5)
TOLERANCE = 1e-4
"""Largest difference, by the largest output, that rounding in another batch explains."""
LARGE = 0.1
"""Difference between training and eval mode, by the size of the outputs, from which it is worth a note."""
_NAMED = 3


def check_behaviour(subject: Subject, spec: ExamineSpec) -> tuple[Finding, ...]:
    """Run all checks; after a wrong shape or numbers that are not finite there are no others.

    Args:
        subject: what to check.
        spec: what is demanded of sequences.

    Raises:
        Exception: whatever the network raises when it is built or run.
    """
    with torch.random.fork_rng(devices=[]):
        first, second = subject.fresh(), subject.fresh()
        findings = [_output_shape(subject, first)]
        if findings[0].verdict == "failed":
            return tuple(findings)
        sizes = _other_sizes(subject)
        if sizes:
            findings.append(_input_sizes(subject, first, sizes))
        findings.append(_finite(subject, first))
        if findings[-1].verdict == "failed":
            return tuple(findings)
        findings.append(_determinism(subject, first, second))
        shake(second)
        findings.append(_gradients(subject, second))
        findings.append(_batch_independence(subject, second))
        findings.append(_train_eval(subject, first))
        if spec.sequence and is_sequence(subject.signature):
            findings.append(causality(second, subject.samples(3), subject.signature, spec.causal))
            if not any(finding.verdict == "failed" for finding in findings):  # the dearest one
                findings.append(growth(first, subject.samples(1), spec.max_exponent))
        return tuple(findings)


def _output_shape(subject: Subject, module: nn.Module) -> Finding:
    check, n_outputs = "output-shape", subject.signature.n_outputs
    for n in sorted(BATCHES, reverse=True):
        try:
            outputs = evaluated(module, subject.samples(n))
        except Exception as error:
            if n > 1:
                raise
            return failed(check, f"cannot take a single sample: {type(error).__name__}: {error}")
        if not isinstance(outputs, Tensor):
            return failed(check, f"the network returns a {type(outputs).__name__}, not a tensor")
        if tuple(outputs.shape) != (n, n_outputs):
            expected = (n, n_outputs)
            return failed(
                check, f"for {n} samples the output has shape {tuple(outputs.shape)}, not {expected}"
            )
    return Finding(check=check, verdict="passed", detail="(n, n_outputs) for 1, 2 and 5 samples")


def _other_sizes(subject: Subject) -> dict[str, Tensor]:
    """Inputs of other sizes, two samples each, by what to call them; none where there are no sizes."""
    samples, shape = subject.samples(2), subject.signature.input_shape
    if is_sequence(subject.signature):
        lengths = [n for n in (shape[0] // 2, shape[0] * 3 // 2) if n not in (0, shape[0])]
        return {f"length {n}": samples[:, torch.arange(n) % shape[0]] for n in lengths}
    if len(shape) == 3:
        sides = {(shape[1] // 2, shape[2] // 2), (shape[1] * 3 // 2, shape[2] * 3 // 2)} - {shape[1:], (0, 0)}
        return {
            f"{h}x{w}": samples[:, :, torch.arange(h) % shape[1]][:, :, :, torch.arange(w) % shape[2]]
            for h, w in sorted(sides)
            if h and w
        }
    return {}


def _input_sizes(subject: Subject, module: nn.Module, sizes: dict[str, Tensor]) -> Finding:
    taken: list[str] = []
    refused: list[str] = []
    for name, inputs in sizes.items():
        try:
            outputs = evaluated(module, inputs)
            fits = tuple(outputs.shape) == (len(inputs), subject.signature.n_outputs)
        except Exception:
            fits = False
        (taken if fits else refused).append(name)
    said = []
    if taken:
        said.append(f"also takes {' and '.join(taken)}")
    if refused:
        said.append(f"does not take {' or '.join(refused)}")
    return Finding(
        check="input-sizes",
        verdict="noted" if refused else "passed",
        detail="; ".join(said),
        numbers={"taken": len(taken), "tried": len(sizes)},
    )


def _finite(subject: Subject, module: nn.Module) -> Finding:
    check = "finite"
    if not torch.isfinite(evaluated(module, subject.samples(SAMPLES))).all():
        return failed(check, "outputs of the untrained network are not finite in eval mode")
    outputs, loss = subject.step(module)
    if not torch.isfinite(outputs).all():
        return failed(check, "outputs of the untrained network are not finite in training mode")
    if not torch.isfinite(loss):
        return failed(check, "the loss of the untrained network is not finite")
    broken = [
        name
        for name, p in module.named_parameters()
        if p.grad is not None and not torch.isfinite(p.grad).all()
    ]
    if broken:
        return failed(check, f"gradients are not finite: {_listed(broken)}", parameters=len(broken))
    size = float(outputs.abs().max())
    return Finding(
        check=check,
        verdict="passed",
        detail="outputs and gradients are finite",
        numbers={"largest_output": min(size, 1e30), "loss": min(float(loss), 1e30)},
    )


def _determinism(subject: Subject, used: nn.Module, unused: nn.Module) -> Finding:
    """Of two networks built alike, of which one has been run before."""
    differing = []
    built = [
        name
        for (name, ours), theirs in zip(used.named_parameters(), unused.parameters(), strict=False)
        if ours.shape != theirs.shape or not torch.equal(ours, theirs)
    ]
    if built:
        differing.append(f"two networks built from one seed have other weights ({_listed(built)})")
    else:
        first, _ = subject.step(used)
        gradients = [p.grad.clone() if p.grad is not None else None for p in used.parameters()]
        second, _ = subject.step(unused)
        apart = difference(first, second)
        for ours, parameter in zip(gradients, unused.parameters(), strict=True):
            if ours is not None and parameter.grad is not None:
                apart = max(apart, difference(ours, parameter.grad))
        if apart > 1e-6:
            differing.append(f"two training passes from one seed differ by {apart:.2g}")
    samples = subject.samples(SAMPLES)
    before = evaluated(unused, samples)
    with torch.no_grad():
        apart = difference(unused(samples), before)  # goes on in the generator where the other one ended
    if apart > 1e-6:
        differing.append(f"two passes in eval mode differ by {apart:.2g}")
    return Finding(
        check="determinism",
        verdict="noted" if differing else "passed",
        detail=one_line("; ".join(differing) or "equal passes give equal outputs"),
        numbers={"eval_difference": min(apart, 1e30)},
    )


def _gradients(subject: Subject, module: nn.Module) -> Finding:
    check = "gradients"
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not trained:
        return failed(check, "the network has no trainable parameters")
    subject.step(module)
    without = [name for name, p in trained if p.grad is None or not bool(p.grad.any())]
    numbers = {"parameters": len(trained), "without": len(without)}
    if len(without) == len(trained):
        return failed(check, "no parameter gets a gradient: nothing can be learnt", **numbers)
    if without:
        said = f"{len(without)} of {len(trained)} parameter tensors get no gradient: {_listed(without)}"
        return Finding(check=check, verdict="noted", detail=one_line(said), numbers=numbers)
    return Finding(check=check, verdict="passed", detail="every parameter gets one", numbers=numbers)


def _batch_independence(subject: Subject, module: nn.Module) -> Finding:
    """The first two samples among others, moved, and alone."""
    check, n = "batch-independence", 6
    samples = subject.samples(n)
    outputs = evaluated(module, samples)
    others = torch.cat([samples[:2], strange(samples[2:], subject.signature)])
    if difference(evaluated(module, samples), outputs) > TOLERANCE:
        said = "equal passes differ, so that nothing can be said of neighbours"
        return Finding(check=check, verdict="skipped", detail=said)
    apart = {"with other neighbours": difference(evaluated(module, others)[:2], outputs[:2])}
    with torch.no_grad():
        is_random = difference(module(samples), outputs) > 1e-6
    if not is_random:  # else another place in the batch has other random numbers
        apart["in another order"] = difference(evaluated(module, samples.flip(0)).flip(0), outputs)
        apart["alone"] = max(
            difference(evaluated(module, samples[i : i + 1]), outputs[i : i + 1]) for i in range(2)
        )
    worst = max(apart, key=lambda name: apart[name])
    numbers = {"difference": min(apart[worst], 1e30)}
    if not apart[worst] <= TOLERANCE:
        said = f"a sample's output changes by {apart[worst]:.2g} of its size {worst}, in eval mode"
        return failed(check, f"{said}: do not compute with statistics of the batch", **numbers)
    return Finding(
        check=check, verdict="passed", detail="neighbours in a batch change no output", numbers=numbers
    )


def _train_eval(subject: Subject, module: nn.Module) -> Finding:
    """What training mode changes beside dropout, where batch norms know the statistics of the batch."""
    norms = [(child, child.momentum) for child in module.modules() if isinstance(child, _BatchNorm)]
    samples = subject.samples(SAMPLES)
    module.train()
    for child in module.modules():
        if isinstance(child, _DropoutNd):
            child.eval()
    torch.manual_seed(SEED)
    with ExitStack() as hooks, torch.no_grad():
        for child, _ in norms:
            child.momentum = 1.0
            hooks.callback(child.register_forward_hook(_as_the_batch).remove)
        training = module(samples)
    for child, momentum in norms:
        child.momentum = momentum
    evaluation = evaluated(module, samples)
    size = float(evaluation.square().mean().sqrt())
    apart = min(float((training - evaluation).square().mean().sqrt()) / max(size, 1e-12), 1e30)
    large = apart > LARGE
    said = f"outputs differ between training and eval mode by {apart:.2g} of their size, dropout aside"
    return Finding(
        check="train-eval", verdict="noted" if large else "passed", detail=said, numbers={"difference": apart}
    )


def _as_the_batch(norm: nn.Module, args: tuple[Tensor, ...], _output: object) -> None:
    """Keep the variance that the batch was normalised by; torch keeps an estimate for more samples."""
    assert isinstance(norm, _BatchNorm)
    if norm.running_var is not None and norm.training:
        n = args[0].numel() // max(1, norm.num_features)
        norm.running_var.mul_((n - 1) / n)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
