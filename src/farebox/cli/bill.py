"""`farebox bill`: a billing run, from the command line."""

from datetime import datetime

from farebox.cli.runtime import clock, new_id, open_runtime, organization_of
from farebox.cli.settings import Settings
from farebox.flows.bill import bill


def run_billing(settings: Settings, organization: str, as_of: datetime | None, draft: bool) -> int:
    """Invoice every period that ended by `as_of` (none: now) and has no invoice yet."""
    with open_runtime(settings) as runtime:
        organization_id = organization_of(runtime, organization)
        run_id = new_id()
        result = bill(
            runtime.pool,
            organization_id,
            run_id,
            as_of or clock(),
            clock,
            new_id,
            finalize=not draft,
        )
    print(f"{result.invoices} {'drafts' if draft else 'invoices'} in {result.pages} pages")
    return 0
