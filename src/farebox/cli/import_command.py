"""`farebox import FILE --mapping mapping.yaml`, and `farebox import --undo NAME`."""

import sys
from pathlib import Path

from farebox.cli.import_events import (
    FileRefusal,
    import_file,
    progress_bar,
    undo_by_name,
    write_rejections,
)
from farebox.cli.reading.mapping import MappingFault, read_mapping
from farebox.cli.runtime import clock, new_id, open_runtime, organization_of
from farebox.cli.settings import Settings
from farebox.flows.import_events import ImportRefusal


def import_command(
    settings: Settings,
    file: Path,
    mapping: Path,
    name: str | None,
    rejected: Path | None,
    organization: str,
) -> int:
    """Import the file, by default under its own name; the rows that were not taken are listed.

    Returns 0, or 1 where rows were refused or conflict with events that are there, or 2 where
    the import itself was refused.
    """
    try:
        how = read_mapping(mapping.read_bytes())
    except OSError as error:
        print(f"farebox import: {error.strerror}: {mapping}", file=sys.stderr)
        return 2
    if isinstance(how, MappingFault):
        where = f"{mapping}:{how.line}: {how.pointer or '/'}"
        print(f"{where}: mapping_invalid: {how.message}", file=sys.stderr)
        return 2
    name = name or file.name
    with open_runtime(settings) as runtime:
        organization_id = organization_of(runtime, organization)
        with progress_bar(name) as show:
            report = import_file(
                runtime.pool, organization_id, file, how, name, clock, new_id, show
            )
        if isinstance(report, (ImportRefusal, FileRefusal)):
            return _refuse(report)
        print(
            f"{report.name}: {report.rows:,} rows: {report.accepted:,} accepted,"
            f" {report.duplicates:,} duplicates, {report.conflicts:,} conflicts,"
            f" {report.rejected:,} rejected"
        )
        if report.conflicts + report.rejected == 0:
            return 0
        target = rejected or Path(f"{name}.rejected.jsonl")
        count = write_rejections(runtime.pool, organization_id, report.import_id, target)
        print(f"{count:,} rows that did not become an event are listed in {target}")
        return 1


def undo_command(settings: Settings, name: str, organization: str) -> int:
    """Undo the import of that name; returns 2 where that is refused."""
    with open_runtime(settings) as runtime:
        organization_id = organization_of(runtime, organization)
        undone = undo_by_name(runtime.pool, organization_id, name, clock())
    if isinstance(undone, ImportRefusal):
        return _refuse(undone)
    print(f"{name}: {undone.events:,} events count no more")
    if undone.draws:
        print(f"{name}: {undone.draws:,} draws of pools gave back what those events burned")
    return 0


def _refuse(refusal: ImportRefusal | FileRefusal) -> int:
    print(f"farebox import: {refusal.code}: {refusal.message}", file=sys.stderr)
    return 2
