"""`python -m trunkline` and the command `trunkline`."""

import io
import sys


def main() -> int:
    """Run the command line; return 0 when done, 2 for the user's mistake, 1 for other errors, 128 + n after signal n."""
    try:
        from .pipelines.command.cli import main as cli  # pyright: ignore[reportMissingImports]

        if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold bytes that are no text
            sys.stdout.reconfigure(errors="backslashreplace")
        return cli(sys.argv[1:])
    except KeyboardInterrupt:  # before the command line listens
        return 130


if __name__ == "__main__":
    sys.exit(main())
