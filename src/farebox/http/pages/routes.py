"""All pages under one router: what they need, who may come in, how they say no."""

from litestar import Router, get
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.response import Redirect

from farebox.http.pages import (
    alerts,
    assets,
    calculator,
    catalog,
    customers,
    event_tester,
    events,
    invoices,
    overview,
    pools,
    pools_actions,
    sign_in,
    webhooks,
)
from farebox.http.pages.form import refuse_other_sites
from farebox.http.pages.page import Page, PageRequest, render
from farebox.http.pages.sign_in import SignInNeeded, ask_to_sign_in, read_viewer


def _refused(request: PageRequest, error: HTTPException) -> Page:
    """Say on a page what went wrong; without what only those who are signed in may see."""
    return render(
        request, "refused.html", viewer=None, status=error.status_code, message=error.detail
    )


console = Router(
    path="/console",
    route_handlers=[
        alerts.add_rule,
        alerts.alert_page,
        alerts.change_rule,
        assets.asset,
        calculator.calculate,
        calculator.calculator,
        catalog.meter_list,
        catalog.meter_page,
        catalog.plan_list,
        catalog.plan_page,
        catalog.rate_card_list,
        catalog.rate_card_page,
        customers.customer_list,
        customers.customer_page,
        event_tester.event_tester,
        event_tester.test_event,
        events.event_list,
        events.event_page,
        invoices.invoice_list,
        invoices.invoice_page,
        invoices.line_page,
        overview.overview,
        pools.pool_list,
        pools.pool_live,
        pools.pool_page,
        pools.statement_page,
        pools_actions.grant,
        pools_actions.settle_grant,
        sign_in.choose_theme,
        sign_in.sign_in,
        sign_in.sign_in_form,
        sign_in.sign_out,
        webhooks.replay_webhook,
        webhooks.test_webhook,
        webhooks.webhook_list,
        webhooks.webhook_page,
    ],
    dependencies={"viewer": Provide(read_viewer, sync_to_thread=True)},
    before_request=refuse_other_sites,
    exception_handlers={SignInNeeded: ask_to_sign_in, HTTPException: _refused},
    include_in_schema=False,
)


@get("/", include_in_schema=False)
async def front() -> Redirect:
    """Lead who opens the address in a browser to the console."""
    return Redirect("/console")


handlers: list[Router] = [console, Router("/", route_handlers=[front], include_in_schema=False)]
"""What the application adds to its routes."""
