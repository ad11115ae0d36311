"""`farebox quote FILE.json`: what a price costs for given quantities, with no server."""

import sys
from pathlib import Path

from farebox.rating.quote import quote, rate_quote, write_quote

__all__ = ["quote", "quote_command"]


def quote_command(file: Path) -> int:
    """Rate the prices and quantities in FILE and print the lines as JSON, one object a line.

    Returns the exit code: 0, or 2 when the file cannot be read or is refused; the problems are
    then printed as JSON lines, each with its code and the JSON pointer of the field.
    """
    try:
        text = file.read_bytes()
    except OSError as error:
        print(f"farebox quote: {error.strerror}: {file}", file=sys.stderr)
        return 2
    quoted = rate_quote(text)
    sys.stdout.buffer.write(write_quote(quoted))
    sys.stdout.flush()
    return 2 if quoted.problems else 0
