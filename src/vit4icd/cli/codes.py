"""The exit codes of all verbs, by name; it ends nothing."""

from typing import Final

__all__ = ["DONE", "FAILED", "MATCHED", "MISUSED", "SKIPPED", "STOPPED"]

DONE: Final = 0
FAILED: Final = 1
"""Something went wrong, or not one input could be used."""
MISUSED: Final = 2
"""Words or options that make no sense."""
SKIPPED: Final = 3
"""Done, but some inputs were skipped, and ``--strict`` asks to say so."""
MATCHED: Final = 11
"""Something is a copy, and ``--fail-on-match`` asks to say so."""
STOPPED: Final = 130
"""Stopped by Ctrl-C or SIGTERM."""
