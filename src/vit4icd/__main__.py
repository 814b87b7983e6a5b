"""``python -m vit4icd`` is the command line, and so is the console script."""

import sys

from vit4icd.allocator import share_arenas

__all__ = ["main"]

_STOPPED = 130


def main() -> None:
    """Run the command line; to stop it while it is still being imported is no failure either."""
    try:
        share_arenas()
        from vit4icd.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(_STOPPED)


if __name__ == "__main__":
    main()
