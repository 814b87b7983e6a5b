"""Write the golden files of tests/test_house.py anew: python scripts/golden.py"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "data" / "golden"


def main() -> None:
    """Write the help of every verb and the list of public names."""
    sys.path.insert(0, str(ROOT))
    from tests.test_house import _public_names, help_file

    from vit4icd import cli

    GOLDEN.mkdir(parents=True, exist_ok=True)
    (GOLDEN / "public_names.txt").write_text(_public_names(), "utf-8")
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    for verb in ("", *cli.VERBS):
        words = [sys.executable, "-m", "vit4icd", *verb.split(), "--help"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        (GOLDEN / help_file(verb)).write_text(done.stdout, "utf-8")


if __name__ == "__main__":
    main()
