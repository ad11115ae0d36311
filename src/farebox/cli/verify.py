"""`farebox verify`: is the ledger what its transfers say, to the last unit?"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from farebox.cli.runtime import open_runtime, organization_of
from farebox.cli.settings import Settings
from farebox.flows.verify_ledger import Progress, Tell, Verified, verify_ledger
from farebox.postgres.session import unbound
from farebox.postgres.verify import organizations_with_pools


def verify(settings: Settings, organization: str | None) -> int:
    """Print all that is wrong with the pools of one organization, or of all (none)."""
    started = time.monotonic()
    pools = transfers = findings = 0
    with open_runtime(settings) as runtime:
        if organization is None:
            with unbound(runtime.pool) as connection:
                found = organizations_with_pools(connection)
        else:
            found = [(organization_of(runtime, organization), organization)]
        for organization_id, key in found:
            with _progress_bar(key) as progress:
                done = verify_ledger(runtime.pool, organization_id, _tell(key), progress)
            pools, transfers = pools + done.pools, transfers + done.transfers
            findings += done.findings
    seconds = time.monotonic() - started
    told = {0: "nothing wrong", 1: "1 finding"}.get(findings, f"{findings:,} findings")
    print(f"{pools:,} pools, {transfers:,} transfers, {seconds:.1f} seconds: {told}")
    return 1 if findings else 0


def _tell(organization: str) -> Tell:
    return lambda one: print(
        f"{organization}/{one.pool}: {one.code}: {one.place}:"
        f" expected {one.expected}, there is {one.found}"
    )


@contextmanager
def _progress_bar(name: str) -> Iterator[Progress]:
    """Show on standard error how many transfers were looked at, while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[transfers]:,} transfers"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None, transfers=0)

        def show(done: Verified) -> None:
            bar.update(task, total=done.total, completed=done.transfers, transfers=done.transfers)

        yield show
