"""`cambrian sandbox build` and `cambrian sandbox clean`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from cambrian.agents.cli.app import emit
from cambrian.agents.errors import UserError


def teller(quiet: bool = False) -> Callable[[str], None]:
    """Prints lines with the seconds since now, on standard error."""
    started = time.monotonic()

    def say(line: str) -> None:
        if not quiet:
            print(f"{time.monotonic() - started:5.0f} s  {line}", file=sys.stderr, flush=True)

    return say


def check_address(engine: str | None) -> None:
    """Refuse what cannot be the address of an engine.

    Raises:
        UserError: it cannot.
    """
    from cambrian.sandbox.devices import check_engine

    if engine is not None:
        try:
            check_engine(engine)
        except ValueError as error:
            raise UserError(f"--engine: {error}", hint="'docker context ls' lists contexts") from None


def check_environment() -> None:
    """Refuse an environment that names an engine by what is no address, rather than do without one.

    Raises:
        EngineOptionError: it does.
    """
    from cambrian.sandbox.engine import resolve
    from cambrian.sandbox.errors import EngineOptionError, InfrastructureError

    try:
        resolve()
    except EngineOptionError:
        raise
    except InfrastructureError:  # opening it will tell, if it is needed
        pass


def build_command(base: str | None, run: Path | None, engine: str | None, as_json: bool) -> None:
    """Build the image, and print its tag, size and contents."""
    check_address(engine)
    plugins: tuple[Path, ...] = ()
    if run is not None:
        from cambrian.agents.runfile import load_run_file
        from cambrian.agents.spaces.code import plugins_of
        from cambrian.search_spaces import SPACES

        config = load_run_file(run, {})
        base, engine = base or config.sandbox.base_image, engine or config.sandbox.engine
        plugins = plugins_of(SPACES.open(config.space))
    from cambrian.sandbox.image.build import describe

    facts = describe(base, plugins, teller(as_json), engine)
    if as_json:
        emit(facts.model_dump(mode="json"))
        return
    print(f"{facts.tag}: {facts.size_mb:,.0f} MB, Python {facts.python}, built from {facts.base}")
    print("packages: " + " ".join(facts.packages))
    for plugin in plugins:
        print(f"plugin: {plugin}")


def clean_command(base: str | None, engine: str | None, as_json: bool) -> None:
    """Remove what is not needed any more, and print what and how much that was."""
    check_address(engine)
    from cambrian.sandbox.adversary.places import remove_left
    from cambrian.sandbox.image.build import clean

    folders = remove_left()
    done = clean(base, engine)
    if as_json:
        emit(done.model_dump(mode="json") | {"folders": folders})
        return
    if folders:
        print(f"removed {folders} temporary folders of checks that were killed")
    for tag in done.images:
        print(f"removed the image {tag}")
    if done.leftovers:
        print(f"removed {done.leftovers} containers and volumes of dead runs")
    for tag, why in done.kept.items():
        print(f"kept the image {tag}: {why}")
    print(
        f"freed {done.freed_mb:,.0f} MB" if done.images or done.leftovers or folders else "nothing to remove"
    )
