"""What a command says when it fails: one line, what to do next, an exit code."""

from dataclasses import dataclass
from enum import IntEnum

import asyncpg
import typer

from metrics.policy import PolicyError
from node.config import ConfigError
from node.data_folder import DataFolderError
from node.registration import RegistrationError
from node.start_error import StartError
from registry.migrate import SchemaError
from registry.refusal import RefusalError
from resolver.errors import ResolverError

# SQLSTATE classes by which PostgreSQL turns a connection away: wrong login, no such database.
_TURNED_AWAY = ("28", "3D")
# Their one line ends with what to do.
_SAYS_WHAT_TO_DO = (
    ConfigError,
    DataFolderError,
    PolicyError,
    RegistrationError,
    SchemaError,
    StartError,
)


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1  # refused, not found, or a fault of ours
    USAGE = 2
    PARTLY = 3  # the good rows were registered, the bad ones reported
    UNREACHABLE = 4  # a store or the node


class CommandError(Exception):
    """A command cannot do what was asked; `do` is what to do next."""

    def __init__(self, message: str, do: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.do = do
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Failure:
    """The line shown, the advice, the exit code."""

    message: str
    do: str
    exit_code: int


def explain(error: Exception) -> Failure:
    """The one table that turns what a command raised into what is shown."""
    message = _line(error)
    match error:
        case CommandError():
            return Failure(message, error.do, error.exit_code)
        case RefusalError():
            return Failure(message, error.do, ExitCode.FAILED)
        case typer.TyperException():
            return Failure(_one_line(error.format_message()), "idnode --help", error.exit_code)
        case ResolverError():
            return Failure(message, "idnode doctor", ExitCode.UNREACHABLE)
        case _ if isinstance(error, _SAYS_WHAT_TO_DO):
            return Failure(message, "", ExitCode.FAILED)
        case asyncpg.PostgresError():
            return _postgres(error)
        case asyncpg.ClientConfigurationError():
            return Failure(f"PostgreSQL: {message}", "IDNODE_POSTGRES_URL", ExitCode.FAILED)
        case OSError():
            return Failure(_os_line(error), "", ExitCode.FAILED)
    return Failure(f"{type(error).__name__}: {message}", "idnode --debug …", ExitCode.FAILED)


def _postgres(error: asyncpg.PostgresError) -> Failure:
    state = str(error.sqlstate or "")
    turned_away = state.startswith(_TURNED_AWAY)
    return Failure(
        f"PostgreSQL: {_line(error)} (SQLSTATE {state})",
        "IDNODE_POSTGRES_URL" if turned_away else "idnode doctor",
        ExitCode.UNREACHABLE if turned_away else ExitCode.FAILED,
    )


def _os_line(error: OSError) -> str:
    if error.filename is None:
        return _line(error)
    return f"{error.filename}: {error.strerror}"


def _line(error: Exception) -> str:
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())
