"""Candidates that go for the score: forged results, lies about time, answers that are no answers."""

from __future__ import annotations

from collections.abc import Iterable

from cambrian.sandbox.adversary.probe import (
    BAD,
    DIFFERS,
    ERROR,
    KILLED,
    MEMORY,
    ORDINARY,
    REPRODUCED,
    TIMED,
    TRAINED,
    Probe,
    at_chance,
    claims_are_ignored,
    has_no_score,
    last_epoch_agrees,
    slow_as_it_is,
)
from cambrian.sandbox.protocol import JobState

SMALL = ORDINARY.model_copy(update={"memory_mb": 600})


def results() -> Iterable[Probe]:
    """They hand in what no honest worker does."""

    def handed(name: str, attempt: str, *files: str, short: bool = False, **more: object) -> Probe:
        genotype = {"act": "hand-in", "files": list(files), **more}
        return Probe(name, attempt, genotype, BAD, short=short, shared="endless" not in files)

    paths = ["../evil", "/etc/cambrian-evil", "a\0b", "outcome.json", "job.json", "jobs/../../evil", "", "."]
    yield handed("paths", "Hands in files with names that are paths.", "paths", names=paths, short=True)
    yield handed("report-only", "Hands in a report and nothing else.", "report")
    yield handed("two-reports", "Hands in two reports.", "weights", "outputs", "report", "worse-report")
    yield handed(
        "after-the-report", "Says more after the report.", "weights", "outputs", "report", "garbage", "step"
    )
    yield handed("infinite-metrics", "Reports infinite numbers.", "weights", "outputs", "infinite-report")
    yield handed("malformed-report", "Hands in a report that is no JSON.", "weights", "outputs", "no-report")
    yield handed("deep-report", "Hands in a report nested 500,000 deep.", "weights", "outputs", "deep-report")
    yield handed(
        "pickled-outputs", "Hands in outputs that act when unpickled.", "weights", "objects", "report"
    )
    yield handed("wrong-dtype", "Hands in outputs of another type.", "weights", "doubles", "report")
    yield handed("wrong-shape", "Hands in outputs with a sample too few.", "weights", "few", "report")
    yield handed("exabytes", "Hands in outputs that claim to be of exabytes.", "weights", "wide", "report")
    yield handed("flood", "Hands in results without end.", "endless", short=True)
    yield handed("many-results", "Hands in 200,000 files.", "many")
    yield handed("long-frame", "Announces a frame of 5 GB.", "claim")
    yield handed("garbage", "Sends noise over the channel.", "garbage", short=True)
    yield handed("test-too-early", "Asks for test inputs before it has handed in weights.", "ask-test")
    yield handed("ask-for-labels", "Asks for labels.", "ask-nonsense")
    yield handed(
        "other-weights-later", "Hands in weights, sees the test inputs, hands in others.",
        "weights", "ask-test", "weights", "outputs", "report", short=True,
    )  # fmt: skip
    yield Probe(
        "hang-up", "Closes the channel and goes on.", {"act": "hand-in", "files": ["hang-up"]}, BAD | KILLED,
        shared=True,
    )  # fmt: skip
    yield Probe(
        "invented", "Hands in all that an honest worker does, without any work.", {"act": "invent"},
        BAD | DIFFERS,
        paired=True, shared=True,
    )  # fmt: skip
    for how, attempt in (
        ("pickle", "Saves its weights as a pickle."),
        ("lies", "Saves weights with a header that lies."),
        ("nothing", "Saves no weights."),
        ("others", "Saves weights of another network."),
    ):
        yield Probe(
            f"weights-{how}", attempt, {"act": "patch-saving", "as": how}, BAD | DIFFERS | ERROR, paired=True,
            shared=True,
        )  # fmt: skip
    yield Probe("smuggled", "Puts an object into its weights.", {"act": "smuggle"}, ERROR | BAD, shared=True)
    yield Probe(
        "odd-names", "Names its weights by paths.",
        {"act": "odd-names", "names": ["../../evil", "/etc/evil", "a\0b"]},
        TRAINED | BAD | ERROR, shared=True,
    )  # fmt: skip
    yield Probe(
        "exploding", "Has weights that grow to 32 GB when copied.", {"act": "exploding"},
        MEMORY | ERROR | KILLED | BAD, limits=SMALL,
    )  # fmt: skip
    for what in ("list", "whole", "axes"):
        yield Probe(
            f"answers-{what}", f"Answers with no matrix of numbers: {what}.", {"act": "no-tensor",
            "what": what},
            ERROR, shared=True,
        )  # fmt: skip
    yield Probe(
        "too-narrow", "Answers with a class too few.", {"act": "short"}, ERROR, words="shape", shared=True
    )
    yield Probe("nan-answers", "Answers NaN.", {"act": "nan-answers"}, BAD, words="not finite", shared=True)
    yield Probe(
        "infinite-answers", "Answers infinity.", {"act": "overflow"}, BAD, words="not finite", shared=True
    )
    yield Probe(
        "print-results",
        "Prints fake results.",
        {"act": "print-claims"},
        TRAINED,
        look=claims_are_ignored,
        shared=True,
    )


def examinations() -> Iterable[Probe]:
    """They lie about what they are, in ways that could do more than harm themselves."""
    good: dict[str, object] = {
        "identity": "f1:" + "0" * 32,
        "findings": [{"check": "finite", "verdict": "passed"}],
    }
    cases: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("nothing", "Reports an examination that found nothing.", {"claimed": {}}),
        ("identity", "Reports an identity that is none.", {"claimed": {**good, "identity": "c-0001"}}),
        (
            "unasked",
            "Reports proxies that nobody asked for.",
            {"claimed": {**good, "proxies": {"naswot": 9}}},
        ),
        ("endless", "Reports 5,000 motifs.", {"claimed": good, "motifs": 5000}),
        ("findings", "Reports 1,000 findings.", {"claimed": good, "findings": 1000}),
        ("infinite", "Reports infinite proxies.", {"claimed": {**good, "proxies": {"params": 1e300}}}),
        (
            "terminal",
            "Reports a finding that clears the reader's screen.",
            {"claimed": {**good, "findings": [{"check": "finite", "verdict": "noted", "detail": "\x1b[2J"}]}},
        ),
    )
    for name, attempt, more in cases:
        yield Probe(
            f"examined-{name}",
            attempt,
            {"act": "claim-examination", **more},
            BAD,
            examined=True,
            shared=True,
            words="report.json",
        )
    yield Probe(
        "examined-well",
        "Reports that it behaves, without having been looked at.",
        {"act": "claim-examination", "claimed": good},
        frozenset({JobState.EXAMINED}),  # it has no score of that, and a training to come
        examined=True,
        shared=True,
        look=has_no_score,
    )
    yield Probe(
        "examined-peeking",
        "Asks for held-out inputs while it is examined.",
        {"act": "hand-in", "files": ["ask-test"]},
        BAD,
        examined=True,
        shared=True,
        words="not due",
    )


def cheating() -> Iterable[Probe]:
    """They want a score or a latency that is not theirs."""
    yield Probe(
        "patched-loss",
        "Makes the loss always 0.",
        {"act": "patch-loss"},
        TRAINED | ERROR,
        look=at_chance,
        shared=True,
    )
    yield Probe(
        "patched-argmax", "Makes argmax of torch and numpy answer what it likes.", {"act": "patch-argmax"},
        TRAINED | BAD, look=last_epoch_agrees, shared=True,
    )  # fmt: skip
    yield Probe(
        "patched-tensors", "Makes tensors turn into other numbers.", {"act": "patch-arrays"}, BAD | DIFFERS,
        paired=True, shared=True,
    )  # fmt: skip
    yield Probe(
        "patched-worker", "Replaces the worker's own functions.", {"act": "patch-worker"}, BAD | DIFFERS,
        paired=True, short=True, shared=True,
    )  # fmt: skip
    yield Probe(
        "patched-curve", "Tells other answers of each epoch than it gave.", {"act": "patch-curve"},
        BAD, words="val_epochs does not end with the predictions", shared=True,
    )  # fmt: skip
    yield Probe(
        "adapts-to-test-set", "Subtracts from its answers their mean over all test inputs.",
        {"act": "adapt-to-test-set"}, BAD | DIFFERS, paired=True, shared=True,
    )  # fmt: skip
    yield Probe(
        "patched-timers", "Makes every clock of Python ten times slower.",
        {"act": "patch-timers", "seconds": 0.01},
        BAD | TRAINED, look=slow_as_it_is, latency=TIMED, short=True,
    )  # fmt: skip
    yield Probe(
        "more-calls", "Claims ten times the calls that it was timed for.",
        {"act": "claim-more-calls", "seconds": 0.01}, BAD | DIFFERS, paired=True, latency=TIMED, shared=True,
    )  # fmt: skip
    yield Probe(
        "shirk-singles", "Does no work for batches of one, which are what is timed.",
        {"act": "shirk", "seconds": 0.01, "sign": "single"}, BAD | DIFFERS, paired=True, latency=TIMED,
        shared=True,
    )  # fmt: skip
    yield Probe(
        "shirk-when-timed", "Does no work while a benchmark is on the stack.",
        {"act": "shirk", "seconds": 0.01, "sign": "stack"}, BAD | DIFFERS, paired=True, latency=TIMED,
        short=True,
    )  # fmt: skip
    yield Probe(
        "reseed", "Takes away seeds, and the means to set them.", {"act": "reseed"}, TRAINED, short=True
    )
    yield Probe(
        "learns-from-questions", "Trains on the inputs that it is evaluated on.",
        {"act": "learns-from-questions"},
        DIFFERS, paired=True, short=True,
    )  # fmt: skip
    yield Probe(
        "neighbours", "Answers by the other samples of the batch.", {"act": "neighbours"}, DIFFERS,
        paired=True,
        shared=True,
    )  # fmt: skip
    yield Probe(
        "dice",
        "Behaves in training, throws dice when evaluated.",
        {"act": "dice"},
        DIFFERS,
        paired=True,
        shared=True,
    )
    yield Probe(
        "by-place", "Answers by the place of a sample in the order of questions.", {"act": "by-place"},
        DIFFERS,
        paired=True, shared=True,
    )  # fmt: skip
    yield Probe(
        "lying-state", "Hands out weights that it does not use.", {"act": "other-weights"}, BAD | DIFFERS,
        paired=True,
        shared=True,
    )  # fmt: skip
    yield Probe(
        "constant", "Answers the same to everything.", {"act": "constant"}, REPRODUCED,
        paired=True, look=at_chance,
        shared=True,
    )  # fmt: skip
