"""What the server's processes hold in memory: proportional set size, as the kernel counts it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.installation import Installation


def measure_memory(one: Installation) -> dict[str, Any]:
    server = pss_mb(one.server_pids())
    database = pss_mb(one.database_pids())
    return {
        "server_mb": server,
        "postgresql_mb": database,
        "with_postgresql_mb": server + database,
        "server_processes": len(one.server_pids()),
    }


def pss_mb(pids: Iterable[int]) -> float:
    """Return the sum of the processes' shares in MB (10^6 bytes); one that ended has none."""
    kilobytes = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        kilobytes += next(
            int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")
        )
    return kilobytes * 1024 / 1_000_000
