"""How both command lines end: an error that the user can act on is a sentence and its exit status; any other is a bug."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

from engines.disk import refusal
from engines.errors import T2IError

#: As shells count what a signal ends: 128 and its number.
INTERRUPTED, NOBODY_READS = 130, 141


def run(
    command: click.Command,
    name: str,
    arguments: Sequence[str] | None = None,
    known: Callable[[Exception], T2IError | None] = refusal,
) -> NoReturn:
    """Run a command and exit.

    Args:
        command: what the arguments are for.
        name: by which it was called.
        arguments: the process's own unless given.
        known: says which other exceptions a user can act on, and how; None for a bug.

    """
    stdout = sys.stdout
    try:
        status = command.main(arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was finished is kept", err=True)
        sys.exit(INTERRUPTED)
    except SystemExit as error:  # so click, which changes stdout, and rich end where nobody reads what they print
        if sys.stdout is stdout and not isinstance(error.__context__, BrokenPipeError):
            raise
        _hush()
        sys.exit(NOBODY_READS)
    except BrokenPipeError:
        _hush()
        sys.exit(NOBODY_READS)
    except T2IError as error:
        _fail(error)
    except Exception as error:
        if (told := known(error)) is None:
            raise
        if isinstance(error, OSError) and error.filename is None:  # it may be stdout that cannot be written
            _hush()
        _fail(told)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(error: T2IError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(error.exit_code)


def _hush() -> None:
    """Let the interpreter flush at its end without another failure."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
