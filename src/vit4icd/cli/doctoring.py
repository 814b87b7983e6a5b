"""The verbs that look after the installation: the doctor, and the settings in effect."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from vit4icd.cli.arguments import Json, MaybeCount, MaybeDevice, MaybePath
from vit4icd.cli.codes import DONE, FAILED
from vit4icd.cli.options import Options, settled
from vit4icd.cli.terminal import print_table, say, shown

if TYPE_CHECKING:
    from vit4icd.installation import Check

__all__ = ["config_show", "doctor"]


def doctor(
    *,
    model: MaybePath = None,
    device: MaybeDevice = None,
    threads: MaybeCount = None,
    json_out: Json = False,
) -> int:
    """Check installation, model, engine, threads and disk, and measure the speed to expect.

    Args:
        model: Model folder; the packaged model by default.
        device: Where the model runs.
        threads: Processors to use; all this process may use by default.
        json_out: Print the checks as JSON.
    """
    options = settled(model, device, threads)
    checks = _examined(options)
    if json_out:
        print(json.dumps([asdict(check) for check in checks], ensure_ascii=False, indent=2))
    else:
        table = Table("", "check", "found", "what to do", box=None)
        for check in checks:
            state = "ok" if check.state == "good" else check.state
            table.add_row(state, check.name, shown(check.found), check.advice)
        print_table(table, None)
    wrong = [check.name for check in checks if check.state == "wrong"]
    if wrong:
        say(False, f"wrong: {', '.join(wrong)}")
    return FAILED if wrong else DONE


def _examined(options: Options) -> "list[Check]":
    """Look at all there is, or at the libraries alone where one of them cannot be loaded."""
    from vit4icd.installation import installation

    try:
        from vit4icd.doctor import examine
    except Exception:  # a broken library may raise anything
        checks = installation()
        if all(check.state == "good" for check in checks):
            raise
        return checks
    return examine(options.model, device=options.device, n_threads=options.threads)


def config_show(*, json_out: Json = False) -> int:
    """Print each setting in effect, and where it comes from.

    Args:
        json_out: Print the settings as JSON.
    """
    from vit4icd.settings import KNOWN, effective, user_file

    settings = effective()
    if json_out:
        print(json.dumps([asdict(setting) for setting in settings.values()], indent=2))
        return 0
    table = Table("setting", "value", "from", "meaning", box=None)
    for name, setting in settings.items():
        value = "" if setting.value is None else str(setting.value)
        table.add_row(name, shown(value), shown(setting.origin), KNOWN[name].meaning)
    print_table(table, None, [f"your own file: {shown(str(user_file()))}"])
    return 0
