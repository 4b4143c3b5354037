"""From the words of the command line to an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal

import typer
import typer.main
from typer import rich_utils

from node.cli import application, enterprise, key, life, prefix
from node.cli.context import Desk
from node.cli.doctor import doctor
from node.cli.export import export
from node.cli.failure import ExitCode, explain
from node.cli.measures import measures
from node.cli.migrate import migrate
from node.cli.output import console, json_text, open_streams, printable
from node.cli.register import register
from node.cli.resolve import resolve
from node.cli.text import TEXTS, text
from node.config import from_environment

# What a shell gives a program that was interrupted.
_INTERRUPTED = 130

app = typer.Typer(
    help="cmd",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
life.add_to(app)
app.command("migrate", help="cmd.migrate")(migrate)
app.add_typer(enterprise.app, name="enterprise")
app.add_typer(prefix.app, name="prefix")
app.command("register", help="cmd.register")(register)
app.command("resolve", help="cmd.resolve")(resolve)
app.command("export", help="cmd.export")(export)
app.add_typer(application.app, name="application")
app.add_typer(key.app, name="key")
app.command("measures", help="cmd.measures")(measures)
app.command("doctor", help="cmd.doctor")(doctor)


@app.callback()
def options(
    lang: Annotated[Literal["zh", "en"] | None, typer.Option(help="opt.lang")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="opt.debug")] = False,
) -> None:
    """Options before the command; `run` has read them already, to choose the texts."""


def main() -> None:
    """The entry point of the program `idnode`."""
    open_streams()
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run one command; everything it says goes to standard output and error.

    Returns:
        the exit code: 0 done, 1 refused or failed, 2 wrong use, 3 some rows were bad, 4 a store
        or the node cannot be reached, 130 interrupted.
    """
    language, debug = _language_asked(words) or "en", "--debug" in words
    try:
        config = from_environment()
        language = _language_asked(words) or config.language
        code = build(language)(
            args=list(words),
            prog_name="idnode",
            standalone_mode=False,
            obj=Desk(replace(config, language=language), language),
        )
        sys.stdout.flush()
        return int(code or ExitCode.OK)
    except BrokenPipeError:
        _drop_output()
        return ExitCode.FAILED
    except (KeyboardInterrupt, typer.Abort):
        console(sys.stderr).print(text("error.interrupted", language))
        return _INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _report(error, language, "--json" in words)


def build(language: str) -> Any:
    """The whole command, its help in `language`."""
    command = typer.main.get_command(app)
    _translate(command, language)
    rich_utils.ARGUMENTS_PANEL_TITLE = text("panel.arguments", language)
    rich_utils.OPTIONS_PANEL_TITLE = text("panel.options", language)
    rich_utils.COMMANDS_PANEL_TITLE = text("panel.commands", language)
    rich_utils.REQUIRED_LONG_STRING = text("panel.required", language)
    rich_utils.DEFAULT_STRING = text("panel.default", language)
    return command


def _translate(command: Any, language: str) -> None:
    """Put texts in the place of their keys, all the way down."""
    command.help = text(command.help, language)
    context = typer.Context(command, **command.context_settings)
    for parameter in (*command.params, command.get_help_option(context)):
        key_of_help = parameter.help
        parameter.help = text("opt.help" if key_of_help not in TEXTS else key_of_help, language)
    for child in getattr(command, "commands", {}).values():
        _translate(child, language)


def _report(error: Exception, language: str, as_json: bool) -> int:
    """Say on standard error what failed and what to do; returns the exit code."""
    failure = explain(error)
    if not failure.message:
        return failure.exit_code  # no command was given: the help was shown instead
    if as_json:
        shown = {"error": failure.message, "do": failure.do}
        sys.stderr.write(json_text(shown, stream=sys.stderr) + "\n")
    else:
        advice = f" ({text('error.do', language)}: {failure.do})" if failure.do else ""
        line = f"{text('error', language)}: {failure.message}{advice}"
        console(sys.stderr).print(printable(line), soft_wrap=True)
    return failure.exit_code


def _language_asked(words: Sequence[str]) -> str | None:
    """The value of `--lang` before the command; what is wrong with it is said by Typer."""
    asked = None
    for word, following in pairwise((*words, "")):
        if word == "--lang":
            asked = following
        elif word.startswith("--lang="):
            asked = word.removeprefix("--lang=")
    return asked if asked in ("zh", "en") else None


def _drop_output() -> None:
    """Whoever read us has gone: let what is still buffered go nowhere, without a complaint."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
