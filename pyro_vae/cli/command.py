"""The ``pyro-vae`` command: dispatch to one function per subcommand."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from pyro_vae._util.threads import restored_threads
from pyro_vae._util.versions import VERSION
from pyro_vae.cli.choices import UsageError, first_line, look_up, table
from pyro_vae.cli.classify import classify
from pyro_vae.cli.compare import compare
from pyro_vae.cli.compress import compress
from pyro_vae.cli.embed import embed
from pyro_vae.cli.evaluate import evaluate
from pyro_vae.cli.explore import explore
from pyro_vae.cli.export import export
from pyro_vae.cli.impute import impute
from pyro_vae.cli.list import list_shelves
from pyro_vae.cli.reconstruct import reconstruct
from pyro_vae.cli.report import report
from pyro_vae.cli.sample import sample
from pyro_vae.cli.score import score
from pyro_vae.cli.train import train
from pyro_vae.training import Interrupted, LostRankError, NonFiniteError

__all__ = ["main"]

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "sample": sample,
    "reconstruct": reconstruct,
    "impute": impute,
    "score": score,
    "classify": classify,
    "embed": embed,
    "compress": compress,
    "export": export,
    "explore": explore,
    "report": report,
    "list": list_shelves,
}


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
        print(table({key: first_line(command) for key, command in COMMANDS.items()}))
        print("\npyro-vae COMMAND --help shows the options of a command.")
        return 0
    if name == "--version":
        print(f"pyro-vae {VERSION}")
        return 0
    where = "pyro-vae"
    try:
        command = look_up("command", name, COMMANDS)
        where = f"pyro-vae {name}"
        with restored_threads():
            return command(rest)
    except SystemExit as end:  # of --help
        return int(end.code or 0)
    except KeyboardInterrupt as end:
        number = end.number if isinstance(end, Interrupted) else signal.SIGINT
        print(f"{where}: interrupted{f' by {end}' if str(end) else ''}", file=sys.stderr)
        return 128 + number
    # tasks and pages raise a TypeError for a program of the wrong kind
    except (TypeError, ValueError, OSError, ImportError, NonFiniteError, LostRankError) as error:
        print(f"{where}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
