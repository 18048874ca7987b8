"""`python -m trunkline` and the command `trunkline`."""

import sys


def main() -> int:
    """Run the command line; the exit code is 0 for done, 2 for the user's mistake, 1 for ours."""
    from .pipelines.cli import main as cli  # pyright: ignore[reportMissingImports]

    return cli(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
