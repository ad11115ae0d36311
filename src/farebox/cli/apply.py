"""`farebox apply catalog.yaml`: let everything in a catalog file stand as it says."""

import sys
from pathlib import Path

from farebox.catalog.diff import render
from farebox.catalog.document import read_document
from farebox.catalog.problem import Problem
from farebox.cli.runtime import clock, new_id, open_runtime, organization_of
from farebox.cli.settings import Settings
from farebox.flows.apply_catalog import apply_catalog


def apply(settings: Settings, file: Path, organization: str, dry_run: bool) -> int:
    """Apply the file, or show what that would change; returns 2 where anything is wrong in it."""
    try:
        text = file.read_bytes()
    except OSError as error:
        print(f"farebox apply: {error.strerror}: {file}", file=sys.stderr)
        return 2
    document = read_document(text)
    if isinstance(document, list):
        return _refuse(document)
    with open_runtime(settings) as runtime:
        organization_id = organization_of(runtime, organization)
        answer = apply_catalog(
            runtime.pool, organization_id, document, clock(), new_id, dry_run=dry_run
        )
    problems = [one for one in answer if isinstance(one, Problem)]
    if problems:
        return _refuse(problems)
    print(render([one for one in answer if not isinstance(one, Problem)]))
    if dry_run:
        print("A dry run: nothing was changed.")
    return 0


def _refuse(problems: list[Problem]) -> int:
    for problem in problems:
        print(f"{problem.pointer or '/'}: {problem.code}: {problem.message}", file=sys.stderr)
    print("Nothing was changed.", file=sys.stderr)
    return 2
