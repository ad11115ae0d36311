"""Derive mooncake_conversation.csv.gz from the trace that Mooncake publishes.

    python derive_mooncake.py conversation_trace.jsonl.gz mooncake_conversation.csv.gz

Every request of the trace names the blocks of 512 tokens that make up its prompt; equal names are
equal content after equal content. The blocks at the front of a prompt that an earlier request
had already sent are what a provider's cache would have answered: 512 tokens each, and never more
than the prompt is long.
"""

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

BLOCK_TOKENS = 512


def rows(lines: Iterator[bytes]) -> Iterator[tuple[int, int, int, int]]:
    """Yield timestamp in ms, prompt tokens, generated tokens and those of the prompt cached."""
    seen: set[int] = set()
    for line in lines:
        request = json.loads(line)
        blocks: list[int] = request["hash_ids"]
        leading = sum(1 for _ in takewhile(seen.__contains__, blocks))
        seen.update(blocks)
        length = request["input_length"]
        cached = min(BLOCK_TOKENS * leading, length)
        yield request["timestamp"], length, request["output_length"], cached


def main(source: Path, target: Path) -> None:
    """Write the derived table; the same source gives the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("timestamp_ms", "input_length", "output_length", "cached_tokens"))
    with gzip.open(source) as lines:
        writer.writerows(rows(lines))
    target.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
