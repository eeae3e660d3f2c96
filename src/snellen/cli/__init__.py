"""Arguments in, a verb called, one line for every error. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import inspect
import sys

from cyclopts import App, CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

from snellen.cli.doctoring import doctor_verb, lab_verb
from snellen.cli.ensembling import ensemble_verb
from snellen.cli.explaining import explain_verb
from snellen.cli.exporting import export_verb, verify_verb
from snellen.cli.options import INTERRUPTED, started_at
from snellen.cli.serving import serve_verb
from snellen.cli.training import audit_verb, train_verb, tune_verb
from snellen.cli.using import compare_verb, evaluate_verb, predict_verb
from snellen.core.console import printable
from snellen.core.errors import ConfigError, SnellenError

_PIPE_CLOSED = 141  # the shell's code for a command whose reader went away, as in snellen predict ... | head


def build_app() -> App:
    """The command line: one command a verb. Settings come from Config, so that each default is written once."""
    app = App(
        name="snellen",
        help="From a folder of images to a vision model you can trust.",
        help_format="plaintext",
        version=_version,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    # By name: these have settings as options, and Config takes longer to load than the rest of the command line.
    app.command("snellen.cli.training:train", name="train", help=inspect.getdoc(train_verb))
    app.command("snellen.cli.training:audit", name="audit", help=inspect.getdoc(audit_verb))
    app.command(evaluate_verb, name="evaluate")
    app.command(predict_verb, name="predict")
    app.command(explain_verb, name="explain")
    app.command(doctor_verb, name="doctor")
    app.command(compare_verb, name="compare")
    app.command(ensemble_verb, name="ensemble")
    app.command("snellen.cli.training:tune", name="tune", help=inspect.getdoc(tune_verb))
    app.command(export_verb, name="export")
    app.command(verify_verb, name="verify")
    app.command(serve_verb, name="serve")
    app.command(lab_verb, name="lab")
    return app


def _version() -> str:
    from importlib.metadata import version

    return version("snellen")


def run(arguments: list[str], *, started: float | None = None) -> int:
    """The whole command: its exit code. ``started`` is when the process began, in ``time.monotonic()`` seconds."""
    started_at(started)
    try:
        if arguments == ["--version"]:
            print(_version())  # the whole application takes five times as long to start
            return 0
        if "" in arguments:
            raise ConfigError(
                "one of the arguments is empty: give a name, or look for a shell variable that is not set"
            )
        code = build_app()(arguments, exit_on_error=False, print_error=False)
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        return _fail(_reworded(error), ConfigError.exit_code)
    except SnellenError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe went away: there is nobody left to tell
        sys.stdout = None
        return _PIPE_CLOSED
    except OSError as error:  # the disk, a permission, a name that is too long: for the user to mend
        where = f" ({error.filename})" if error.filename is not None else ""
        return _fail(f"the operating system refused: {error.strerror or error}{where}", SnellenError.exit_code)


def _reworded(error: CycloptsError) -> str:
    """What is wrong with the command line, and where its help is."""
    command = " ".join(("snellen", *(error.command_chain or ())))
    if isinstance(error, UnusedCliTokensError):
        first = (error.unused_tokens or [""])[0]
        message = f"'{first}' is one argument too many; put quotes around a path with blanks in it"
    elif isinstance(error, MissingArgumentError) and error.argument is not None and not error.keyword:
        message = f"{error.argument.name.lstrip('-')} is missing"
    else:
        message = str(error).strip().rstrip(".")
        message = message[:1].lower() + message[1:]
    return message if message.endswith("?") else f"{message}; see {command} --help"


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"error: {printable(line)}", file=sys.stderr)
    return code
