"""The `cambrian` command: its sub-commands, and how errors become one line, a hint and an exit code."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cambrian.agents.cli.bench import bench
from cambrian.agents.cli.prompts import prompts
from cambrian.agents.cli.sandboxes import sandboxes
from cambrian.agents.cli.spaces import spaces

app = typer.Typer(
    name="cambrian",
    help="Discover neural network architectures with LLM agents and evolution.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a bug, 2 your input, 3 a limit, 4 infrastructure down (resume goes on), "
    "130 Ctrl-C, 143 SIGTERM.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Run id, the start of it, or 'last'.")]
Runs = Annotated[
    Path | None, typer.Option("--runs", help="Folder that runs are kept in.", envvar="CAMBRIAN_RUNS")
]


# typer brings its own copy of click or the real one, by version: both derive usage errors from this class.
_USAGE: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"cambrian {version('cambrian')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    run_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUNFILE", help="YAML run file, such as runs/first-light.yaml.", show_default=False
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Limit: 10m, 50 (evaluations), or evaluations=50,wall_s=10m; several are joined."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as seed=3.")
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            "--llm",
            metavar="local|FILE.gguf|MODEL",
            help="Which model plans: the installed one or a file, served here; or an endpoint's.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Validate the run file and its data, run nothing.")
    ] = False,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Execute a run again from its record, without a key and without training."
        ),
    ] = None,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Launch a discovery run, or execute a recorded one again."""
    from cambrian.agents.cli.launch import check_command, replay_command, run_command

    if replay is not None:
        if run_file is not None or budget or settings or llm is not None or check:
            raise typer.BadParameter(
                "takes everything from the recorded run: leave out the others", param_hint="--replay"
            )
        replay_command(replay, as_json, runs)
        return
    if run_file is None:
        raise typer.BadParameter(
            "name one, such as runs/first-light.yaml, or --replay RUN", param_hint="RUNFILE"
        )
    if check:
        check_command(run_file, budget or [], settings or [], as_json, llm)
    else:
        run_command(run_file, budget or [], settings or [], as_json, runs, llm)


@app.command()
def resume(
    run_id: RunId = "last",
    budget: Annotated[
        list[str] | None, typer.Option(help="A new limit for the whole run; several are joined.")
    ] = None,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Go on with a run that was stopped or killed."""
    from cambrian.agents.cli.launch import resume_command

    resume_command(run_id, budget or [], as_json, runs)


@app.command("runs")
def list_runs(as_json: Json = False, runs: Runs = None) -> None:
    """List the runs."""
    from cambrian.agents.cli.looking import runs_command

    runs_command(as_json, runs)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="RUN|CANDIDATE", help="A run, c-0012 (of the last run) or RUN/c-0012.")
    ] = "last",
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Show a run's leaderboard, or all that is known of a candidate."""
    from cambrian.agents.cli.looking import show_command

    show_command(name, as_json, runs)


@app.command()
def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="CANDIDATE", help="c-0012 (of the last run), RUN/c-0012, or RUN for its best."
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write to.")] = None,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Write a candidate as a standalone Python file with its trained weights."""
    from cambrian.agents.cli.looking import export_command

    export_command(name, out, as_json, runs)


@app.command()
def review(
    run_id: RunId = "last",
    approve: Annotated[list[str] | None, typer.Option(help="Candidate to approve, or 'all'.")] = None,
    reject: Annotated[list[str] | None, typer.Option(help="Candidate to reject.")] = None,
    reason: Annotated[str, typer.Option(help="Why; the planner is told.")] = "",
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Answer for the proposals that wait for a person; without options, list them or ask one by one."""
    from cambrian.agents.cli.reviewing import review_command

    review_command(run_id, approve or [], reject or [], reason, as_json, runs)


app.add_typer(spaces, name="spaces")
app.add_typer(prompts, name="prompts")
app.add_typer(sandboxes, name="sandbox")
app.add_typer(bench, name="bench")


@app.command()
def doctor(
    run_file: Annotated[
        Path | None, typer.Argument(metavar="[RUNFILE]", help="Also check what this run needs.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also start the local model, to tell how fast it is.")
    ] = False,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Say what this machine offers, and what each missing piece would change."""
    from cambrian.agents.cli.offers import doctor_command

    doctor_command(run_file, as_json, runs, probe)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Open MLflow on what was recorded, until Ctrl-C."""
    from cambrian.agents.cli.offers import ui_command

    ui_command(port, as_json, runs)


def main() -> None:
    """Entry point: run the command, turn every expected error into one line and an exit code."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    as_json = "--json" in sys.argv
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the reader went away, as `head` does
        sys.exit(0)
    except SystemExit:
        raise
    except BaseException as error:
        sys.exit(_explain(error, as_json))


def _explain(error: BaseException, as_json: bool) -> int:
    """Print `error` for people or programs and return the exit code."""
    from cambrian.search_spaces.errors import CambrianError

    number = getattr(error, "number", None)
    if isinstance(number, int):  # a signal: everything in flight of a run was kept
        hint = getattr(error, "hint", "`cambrian resume last` goes on")
        _tell(f"stopped by {error}", hint, 128 + number, as_json)
        return 128 + number
    if isinstance(error, CambrianError):
        _tell(error.message, error.hint, error.exit_code, as_json)
        return error.exit_code
    if isinstance(error, _USAGE):
        _tell(
            _one_line(error.format_message()), "`cambrian --help` and `cambrian COMMAND --help`", 2, as_json
        )
        return 2
    if os.environ.get("CAMBRIAN_DEBUG"):
        raise error
    _tell(
        f"a bug in Cambrian: {type(error).__name__}: {error}",
        "set CAMBRIAN_DEBUG=1 for the traceback and report it; `cambrian resume` goes on",
        1,
        as_json,
    )
    return 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _tell(message: str, hint: str, code: int, as_json: bool) -> None:
    if as_json:
        emit({"error": message, "hint": hint, "exit_code": code})
    print(f"error: {message}" + (f"\nhint: {hint}" if hint else ""), file=sys.stderr)


def emit(data: Any) -> None:
    """Print `data` as JSON on standard output."""
    print(json.dumps(data, indent=2, default=str))
