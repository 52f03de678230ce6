"""What the commands beside the stages share."""

import argparse


def command_parser(name: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Returns a parser of ``maskcast NAME``, whose help ends in ``epilog`` (as it is written)."""
    return argparse.ArgumentParser(
        prog=f"maskcast {name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
