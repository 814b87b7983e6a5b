"""``python -m vit4icd`` is the command line."""

from vit4icd.cli import main

if __name__ == "__main__":
    main()
