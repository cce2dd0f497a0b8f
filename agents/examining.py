"""What candidates of a run are examined for before they are trained.

Generated code always is: what it computes cannot be told without running it, and where it runs it can be
looked at. Networks of trusted blocks are where the run file asks for it; their identity is the host's affair.
"""

from __future__ import annotations

from cambrian.agents.errors import RunFileError
from cambrian.agents.runfile import RunConfig
from cambrian.sandbox.examination.report import ExamineSpec, is_sequence
from cambrian.search_spaces import Space, TabularTask, Task


def examine_spec(config: RunConfig, space: Space, task: Task) -> ExamineSpec | None:
    """What to find out of every candidate; None where nothing is run for it."""
    checks, is_code = config.checks, space.kind == "code"
    if isinstance(task, TabularTask):
        return None
    automatic = checks.behaviour == "auto" and (is_code or bool(checks.demands))
    behaviour = checks.behaviour == "on" or automatic
    if not (is_code or behaviour or checks.proxies):
        return None
    return ExamineSpec(
        identity=is_code,
        behaviour=behaviour,
        proxies=checks.proxies,
        motifs=is_code,
        sequence=is_sequence(task.signature),
        causal=checks.causal,
        max_exponent=checks.max_exponent,
    )


def check_demands(config: RunConfig, task: Task, origin: str) -> None:
    """See that what is demanded of candidates can be seen in this task.

    Raises:
        RunFileError: it cannot; the message names the field.
    """
    checks = config.checks
    asked = [*checks.demands, *(["proxies"] if checks.proxies else [])]
    if isinstance(task, TabularTask) and asked:
        raise RunFileError(
            f"{origin}: checks.{asked[0]}: task {task.name!r} is a table, where no network is built",
            hint="leave it out",
        )
    of_sequences = [name for name in ("causal", "max_exponent") if name in checks.demands]
    if of_sequences and not is_sequence(task.signature):
        raise RunFileError(
            f"{origin}: checks.{of_sequences[0]}: inputs of task {task.name!r} have no length",
            hint="leave it out, or take a task of sequences, such as 'digits' with 'view: sequence'",
        )
