"""What the pages say, that they stay inside their budgets, and that every link leads somewhere."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from farebox.flows.place_reading import Fate
from farebox.http.pages import assets
from farebox.http.pages.chart import Chart, ChartSeries
from farebox.http.pages.fate_text import FATE_TEXTS
from farebox.http.pages.navigation import NAVIGATION
from farebox.postgres import console
from farebox.postgres.session import Pool, transaction

BYTES_MAX = 60_000
HOSTILE = "</script><script>alert(1)</script>"
PATHS = [place.path for section in NAVIGATION for place in section.places]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)


class Page(HTMLParser):
    """What of a page can be checked without looking at it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        link = attributes.get("href")
        if tag == "a" and link:
            self.links.append(link)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def words(text: str) -> str:
    """Return what a page shows, without its markup and extra space."""
    shown = re.sub(r"<script.*?</script>", " ", text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", shown)).split())


def check_page(path: str, text: str) -> Page:
    """Assert what holds for every page, and return it parsed."""
    page = Page(text)
    assert len(text.encode()) < BYTES_MAX, (path, len(text))
    assert len(page.all("h1")) == 1, path
    assert not [one for _, one in page.tags if "style" in one], path
    assert not [name for _, one in page.tags for name in one if name.startswith("on")], path
    assert all(one.get("src") or one["type"] == "application/json" for one in page.all("script"))
    assert all(one.get("scope") for one in page.all("th")), path
    identifiers = [one["id"] for _, one in page.tags if one.get("id")]
    assert len(identifiers) == len(set(identifiers)), path
    for tag in ("input", "select", "textarea"):
        for one in page.all(tag):
            named = one.get("aria-label") or one.get("type") == "hidden"
            assert named or text.index("<label") < text.index(f'name="{one["name"]}"'), (path, one)
    return page


def test_every_link_of_every_page_leads_to_a_page(vendor: Any) -> None:
    seen: set[str] = set()
    waiting = ["/console"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = vendor.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[-500:])
        assert answer.headers["content-security-policy"] == POLICY
        for link in check_page(path, answer.text).links:
            whole = urlsplit(urljoin(f"http://x{path}", link))
            assert whole.netloc == "x", (path, link)
            waiting.append(f"{whole.path}?{whole.query}" if whole.query else whole.path)
    assert seen >= set(PATHS)
    assert len(seen) > 40


def test_what_the_pages_load_comes_from_here_and_is_there(vendor: Any) -> None:
    page = Page(vendor.page("/console"))
    wanted = [one["href"] for one in page.all("link")] + [one["src"] for one in page.all("script")]
    for path in filter(None, wanted):
        answer = vendor.get(path)
        assert (200, "nosniff") == (answer.status_code, answer.headers["x-content-type-options"])
    assert 404 == vendor.get("/console/assets/built/../../pages/page.py").status_code


def test_the_overview_counts_and_warns(vendor: Any) -> None:
    text = words(vendor.page("/console"))
    assert "Events today 8" in text  # received at the stopped clock's noon
    assert "Events in all 8" in text
    assert "Events of type sms.sent No meter reads this type." in text
    assert "Subject nobody It belongs to no customer." in text
    assert "INV-000002 of acme" in text


def test_the_overview_sums_each_meter(vendor: Any) -> None:
    text = words(vendor.page("/console"))
    # 77 of 20 May, then June: 4000, 5, 5 and 6; the first two lie before the thirty days.
    assert "Tokens tokens 5 6 4,093" in text
    assert "Requests readings 5 1 5" in text


def test_an_invoice_opens_down_to_the_event(vendor: Any) -> None:
    path = Page(vendor.page("/console/invoices?q=INV-000002")).links
    (invoice,) = {link for link in path if link.startswith("/console/invoices/inv_")}
    text = vendor.page(invoice)
    shown = words(text)
    # Tokens: 1,234 at 2.50 per 1,000 is 3.085, half up 3.09; requests: 2 at 0.50 and 1 at 0.25.
    assert "$24.34" in shown
    assert "large 1,234 $2.50 / 1,000 $3.085 Exact $3.085 Line, rounded once $3.09" in shown
    assert "tier 2 above 2 1 $0.25 $0.25 Line $1.25" in shown
    assert "Platform fee 1–30 Jun 2026 · fixed fee $20.00" in shown
    assert "tokens unheard-of no cell 1 77" in shown
    (line, *_) = [link for link in Page(text).links if "/lines/" in link]
    behind = vendor.page(line)
    # The unpriced reading is the same customer's usage of the same meter, but not this line's.
    assert re.findall(r">(m\d)</a>", behind) == ["m1", "m2"]
    event = next(link for link in Page(behind).links if "id=m1" in link)
    told = words(vendor.page(event))
    assert "m1 billed It is on an invoice." in told
    assert "priced by models v1 : $2.50 by itself → INV-000002, line 2" in told


def test_a_customer_sees_the_invoice_to_come(vendor: Any) -> None:
    shown = words(vendor.page("/console/customers/acme"))
    assert "Upcoming invoice live acme-main · team, version 1 · 1–30 Jun 2026 $30.50" in shown
    assert "4,077 tokens" in shown  # 20 May to 15 June


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("meter=tokens&by=model", "large 1 4,000 unheard-of 1 77"),
        ("meter=requests&stretch=year", "4 units · 4 readings"),
        ("meter=users&stretch=year", "2 units · 4 readings"),
        ("by=none&stretch=none", "4,077 tokens · 2 readings"),
        ("meter=tokens&stretch=day", "Nothing used in this stretch"),
    ],
)
def test_usage_is_cut_as_asked(vendor: Any, query: str, says: str) -> None:
    assert says in words(vendor.page(f"/console/customers/acme?{query}"))


def test_each_window_has_its_own_usage(vendor: Any) -> None:
    shown = words(vendor.page("/console/customers/acme?meter=tokens&by=model"))
    table = shown[shown.index("Every window as a table") :]
    assert "From large unheard-of 20 May 2026, 00:00:00 – 77 10 Jun 2026, 00:00:00 4,000 –" in table


def test_a_chart_cannot_end_its_element() -> None:
    series = ChartSeries(HOSTILE, (Decimal("0.1"), None))
    chart = Chart(kind="bars", x=(Decimal(1), Decimal(2)), series=(series,), label="")
    assert not set("<>&") & set(chart.json)
    (read,) = json.loads(chart.json)["series"]
    assert {"label": HOSTILE, "values": ["0.1", None], "axis": "y"} == read


def test_hostile_names_stay_text(vendor: Any) -> None:
    for path in ("/console/customers", "/console/customers/hostile?by=model", "/console/events"):
        text = vendor.page(path)
        assert "<script>alert" not in text
        check_page(path, text)


def test_another_organization_sees_none_of_it(vendor: Any, new_vendor: Any) -> None:
    other = new_vendor("Other")
    (invoice,) = {
        link
        for link in Page(vendor.page("/console/invoices?q=INV-000002")).links
        if link.startswith("/console/invoices/inv_")
    }
    for path in (
        invoice,
        f"{invoice}/lines/2",
        "/console/customers/acme",
        "/console/meters/tokens",
        "/console/event?source=gateway&id=m1",
    ):
        assert 404 == other.get(path).status_code, path
    assert "acme" not in other.page("/console/customers")


def test_an_empty_organization_has_every_page(new_vendor: Any) -> None:
    empty = new_vendor("Fresh")
    for path in PATHS:
        check_page(path, empty.page(path))
    assert "No meter yet" in empty.page("/console")


@pytest.mark.parametrize(
    "path",
    [
        "/console/nothing",
        "/console/customers/none",
        "/console/plans/x",
        "/console/meters/tokens?version=9",
        "/console/invoices/INV-9",
        "/console/invoices/x/lines/1",
        "/console/event?source=a&id=b",
    ],
)
def test_what_is_not_there_says_so(vendor: Any, path: str) -> None:
    answer = vendor.get(path)
    assert 404 == answer.status_code
    assert answer.headers["content-type"].startswith("text/html") or path == "/console/nothing"


@pytest.mark.parametrize(
    "query", ["after=x", "after=~", "after=2026-01-01~inv_0", "status=no", "q=%25", "after=%00"]
)
def test_odd_queries_show_a_page(vendor: Any, query: str) -> None:
    for path in ("/console/invoices", "/console/customers"):
        assert vendor.get(f"{path}?{query}").status_code in (200, 400)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (
            '{"specversion":"1.0","id":"t","source":"s","type":"llm.request","subject":"acme",'
            '"time":"2026-06-15T11:00:00Z","data":{"model":"large","tokens":2000,"user":"u"}}',
            "2,000 large · subject acme · customer acme",
        ),
        (
            '{"specversion":"1.0","id":"t","source":"s","type":"llm.request","subject":"acme",'
            '"data":{"model":"large","user":"u"}}',
            "Rejected: value missing.",
        ),
        ('{"specversion":"1.0","id":"t","source":"s","type":"sms.sent"}', "No meter reads events"),
        ("not json", "Rejected: malformed json."),
        ("", "Rejected: malformed json."),
    ],
)
def test_the_event_tester_follows_an_event(vendor: Any, event: str, says: str) -> None:
    before = vendor.page("/console/events")
    answer = vendor.post("/console/event-tester", data={"event": event})
    assert (200, True) == (answer.status_code, says in words(answer.text)), words(answer.text)
    assert before == vendor.page("/console/events")


def test_events_since_an_instant_are_counted_exactly(vendor: Any, pool: Pool) -> None:
    with transaction(pool, vendor.organization_id) as connection:
        found = [
            console.events_since(connection, vendor.organization_id, instant, 8)
            for instant in (datetime(2026, 6, 15, tzinfo=UTC), datetime(2026, 6, 16, tzinfo=UTC))
        ]
    assert [8, 0] == found


def test_without_built_files_pages_say_how_to_build(
    vendor: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "console.css").write_text("")
    monkeypatch.setattr(assets, "STATIC", tmp_path)
    assets.load_assets.cache_clear()
    try:
        text = vendor.page("/console/customers/acme")
    finally:
        assets.load_assets.cache_clear()
    assert '<script type="module"' not in text
    assert "make web" in text


def test_every_fate_has_its_words() -> None:
    assert set(Fate) == set(FATE_TEXTS)


def test_each_page_has_its_own_letter() -> None:
    letters = [place.key for section in NAVIGATION for place in section.places]
    assert len(letters) == len(set(letters))


def test_the_documentation_names_every_page_and_letter() -> None:
    text = (Path(__file__).parents[2] / "docs" / "console.md").read_text()
    for section in NAVIGATION:
        for place in section.places:
            assert f"## {place.label}\n" in text
            assert f"| {place.label} | `g` `{place.key}` |" in text


def test_the_theme_is_kept(vendor: Any) -> None:
    answer = vendor.post("/console/theme", data={"theme": "dark", "next": "/console/plans"})
    assert (303, "/console/plans") == (answer.status_code, answer.headers["location"])
    cookie = f"farebox_session={vendor.cookie}; farebox_theme=dark"
    page = vendor.client.get("/console/plans", headers={"cookie": cookie})
    assert '<html lang="en" data-theme="dark">' in page.text
