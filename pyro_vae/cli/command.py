"""The ``pyro-vae`` command: dispatch to one function per subcommand."""

from __future__ import annotations

import importlib
import re
import signal
import sys
from collections.abc import Callable

from pyro_vae._util.threads import restored_threads
from pyro_vae._util.versions import VERSION
from pyro_vae.cli.choices import UsageError, first_line, look_up, table
from pyro_vae.training import Interrupted, LostRankError, NonFiniteError

__all__ = ["main"]

#: The function of each command, in the module of its name. A command imports its own module only: matplotlib, which
#: most of them do not need, takes a sixth of the import time.
COMMANDS = {
    "train": "train",
    "evaluate": "evaluate",
    "compare": "compare",
    "sample": "sample",
    "reconstruct": "reconstruct",
    "impute": "impute",
    "score": "score",
    "classify": "classify",
    "embed": "embed",
    "forecast": "forecast",
    "compress": "compress",
    "export": "export",
    "explore": "explore",
    "report": "report",
    "list": "list_shelves",
}


def load(name: str) -> Callable[[list[str]], int]:
    """Import a command and return its function."""
    return getattr(importlib.import_module(f"pyro_vae.cli.{name}"), COMMANDS[name])


def as_option(command: str, text: str) -> str:
    """Return an error that begins with a Python argument with the option of the command in its place."""
    argument = re.match(r"[a-z]+(?:_[a-z]+)+(?=: )", text)
    if argument is None:
        return text
    run = "RUN" if argument[0] == "run_dir" and command not in ("train", "compare") else argument[0]
    return run.replace("_", "-") + text[argument.end() :]


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments after the name of the command; those of the process by default

    Returns:
        The exit status: 0, 1 for an error during the work, 2 for a mistake on the command line, 130 and 143 for
        training that SIGINT and SIGTERM ended after it was saved.

    Example:
        >>> main(["--version"])
        pyro-vae 0.1.0
        0
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if name in ("-h", "--help"):
        print("usage: pyro-vae COMMAND [options], where COMMAND is one of\n")
        print(table({key: first_line(load(key)) for key in COMMANDS}))
        print("\npyro-vae COMMAND --help shows the options of a command.")
        return 0
    if name == "--version":
        print(f"pyro-vae {VERSION}")
        return 0
    where = "pyro-vae"
    try:
        look_up("command", name, COMMANDS)
        where = f"pyro-vae {name}"
        with restored_threads():
            return load(name)(rest)
    except SystemExit as end:  # of --help
        return int(end.code or 0)
    except KeyboardInterrupt as end:
        number = end.number if isinstance(end, Interrupted) else signal.SIGINT
        print(f"{where}: interrupted{f' by {end}' if str(end) else ''}", file=sys.stderr)
        return 128 + number
    # tasks and pages raise a TypeError for a program of the wrong kind
    except (TypeError, ValueError, OSError, ImportError, NonFiniteError, LostRankError) as error:
        print(f"{where}: error: {as_option(name, str(error))}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
