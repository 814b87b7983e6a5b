"""The front door: one function per verb, which parses, calls its room and prints; no logic.

Data goes to stdout, talk to stderr; progress is drawn on a terminal only. Exit codes: 0 done, 1
failed, 2 wrong usage, 3 finished but some inputs were skipped (with --strict), 11 something matched
(with --fail-on-match), 130 stopped.
"""

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence

import tyro
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

import vit4icd
from vit4icd.cli.adding import index_add
from vit4icd.cli.codes import FAILED, MISUSED, STOPPED
from vit4icd.cli.collecting import (
    index_compact,
    index_info,
    index_list,
    index_recover,
    index_remove,
    index_restore,
    index_snapshot,
    index_verify,
)
from vit4icd.cli.comparing import compare
from vit4icd.cli.deduplicating import dedup, leaks
from vit4icd.cli.doctoring import config_show, doctor
from vit4icd.cli.measuring import calibrate, demo, describe, evaluate, match
from vit4icd.cli.searching import search
from vit4icd.cli.serving import serve
from vit4icd.cli.terminal import shown, talk
from vit4icd.cli.training import edits, export, import_weights, prepare_copies, train
from vit4icd.errors import ConfigError, Vit4icdError

__all__ = ["VERBS", "main"]

VERBS: dict[str, Callable[..., int]] = {
    "describe": describe,
    "match": match,
    "evaluate": evaluate,
    "calibrate": calibrate,
    "demo": demo,
    "index add": index_add,
    "index remove": index_remove,
    "index info": index_info,
    "index list": index_list,
    "index verify": index_verify,
    "index compact": index_compact,
    "index snapshot": index_snapshot,
    "index restore": index_restore,
    "index recover": index_recover,
    "search": search,
    "compare": compare,
    "dedup": dedup,
    "leaks": leaks,
    "serve": serve,
    "train": train,
    "import-weights": import_weights,
    "export": export,
    "edits": edits,
    "prepare-copies": prepare_copies,
    "doctor": doctor,
    "config show": config_show,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    _let_any_name_out()
    words = _joined(list(sys.argv[1:] if arguments is None else arguments))
    if words[:1] == ["--version"]:
        print(f"vit4icd {vit4icd.__version__}")
        sys.exit(0)
    if _asks_for_overview(words):
        _print_overview(_verbs(words))
        sys.exit(0)
    if not words or (len(words) == 1 and _verbs(words) is not VERBS):
        _print_overview(_verbs(words), is_error=True)
        sys.exit(MISUSED)
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            _verbs(words), prog="vit4icd", description=vit4icd.__doc__, args=words,
            config=(tyro.conf.FlagCreatePairsOff,),
        )  # fmt: skip
        sys.stdout.flush()  # a reader that left is noticed here, not at the very end
    except Vit4icdError as error:
        talk.print(f"vit4icd: {error}", style="red", markup=False, soft_wrap=True)
        code = MISUSED if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        talk.print("vit4icd: stopped; run the same command to go on (train: with --resume)")
        code = STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except OSError as error:
        talk.print(f"vit4icd: {_told(error)}", style="red", markup=False, soft_wrap=True)
        code = FAILED
    sys.exit(code)


def _let_any_name_out() -> None:
    """Print UTF-8 to programs, stray bytes as they are; escape what a terminal cannot show."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    if sys.stdout.isatty():
        sys.stdout.reconfigure(errors="backslashreplace")
    else:
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def _told(error: OSError) -> str:
    """Say which file it was, and what is wrong with it."""
    said = error.strerror or str(error)
    return said if error.filename is None else f"{shown(os.fsdecode(error.filename))}: {said}"


def _joined(words: list[str]) -> list[str]:
    """Take the two words of a verb such as "index add" for one."""
    verb = " ".join(words[:2])
    return [verb, *words[2:]] if verb in VERBS else words


def _asks_for_overview(words: Sequence[str]) -> bool:
    """Return whether help is wanted of all verbs, or of those that begin with a word."""
    is_help = words[-1:] in (["-h"], ["--help"])
    return is_help and (len(words) == 1 or (len(words) == 2 and words[0] not in VERBS))


def _print_overview(verbs: Mapping[str, Callable[..., int]], *, is_error: bool = False) -> None:
    """Print what there is, a verb each; the help of a verb says more."""
    about = Table.grid(padding=(0, 2))
    for name, verb in verbs.items():
        about.add_row(name, (verb.__doc__ or "").split("\n\n")[0])
    console = Console(highlight=False, markup=False, stderr=is_error)
    console.print("usage: vit4icd [-h] [--version] VERB ...\n\n", vit4icd.__doc__, "\n", sep="")
    console.print(Panel(about, title="verbs", title_align="left"))
    console.print("What one takes: vit4icd VERB --help")


def _verbs(words: Sequence[str]) -> dict[str, Callable[..., int]]:
    """Return all verbs; after the first word of two, those that begin with it."""
    begun = {
        name: verb for name, verb in VERBS.items() if words and name.startswith(words[0] + " ")
    }
    return begun or VERBS
