"""`farebox llm-prices`: today's prices of language models as a new version of a rate card."""

import sys
from collections.abc import Sequence
from datetime import datetime

from farebox.catalog.diff import render
from farebox.catalog.document import Document
from farebox.catalog.llm import llm_meters, llm_rate_cards
from farebox.catalog.problem import Problem
from farebox.cli.runtime import clock, new_id, open_runtime, organization_of
from farebox.cli.settings import Settings
from farebox.flows.apply_catalog import apply_catalog


def import_llm_prices(
    settings: Settings, organization: str, models: Sequence[str], since: datetime | None, key: str
) -> int:
    """Publish the meters of the preset and one card version for each stretch of unchanged prices.

    since: price usage from this instant on (none: from now). A model that the price list does not
    know, or cannot price by the token, is named and left out; returns 1 where that happened.
    """
    now = clock()
    versions = llm_rate_cards(models, since or now, now, key=key)
    with open_runtime(settings) as runtime:
        organization_id = organization_of(runtime, organization)
        for place, prices in enumerate(versions):
            document = Document(
                meters=llm_meters() if place == 0 else (),
                aliases=prices.aliases,
                rate_cards=(prices.card,),
            )
            answer = apply_catalog(runtime.pool, organization_id, document, now, new_id)
            problems = [one for one in answer if isinstance(one, Problem)]
            for problem in problems:
                print(f"{problem.pointer}: {problem.code}: {problem.message}", file=sys.stderr)
            if problems:
                return 2
            print(render([one for one in answer if not isinstance(one, Problem)]))
    left_out = {(one.model, one.reason) for prices in versions for one in prices.left_out}
    for model, reason in sorted(left_out):
        print(f"left out: {model}: {reason}", file=sys.stderr)
    return 1 if left_out else 0
