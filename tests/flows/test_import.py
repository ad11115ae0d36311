"""Importing files: every row is answered, twice is once, and a killed import goes on."""

import csv
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from farebox_world import World, at, new_id

from farebox.catalog.meter import Aggregation, Meter
from farebox.cli import import_events as command
from farebox.cli.import_events import (
    FileCode,
    FileRefusal,
    ImportReport,
    import_file,
    undo_by_name,
    write_rejections,
)
from farebox.cli.reading.mapping import FileMapping, MappingFault, read_mapping
from farebox.cli.reading.row import RowCode
from farebox.flows.backfill_meter import BackfillCode
from farebox.flows.import_events import ImportCode, ImportRefusal
from farebox.flows.read_usage import read_meters, read_quantities
from farebox.metering.quantity import Target
from farebox.postgres.session import transaction

MAPPING = """
type: {constant: api.request}
id: request
subject: user
time: {column: when, timezone: Europe/Berlin}
data:
  tokens: {column: tokens, type: number}
  region: {constant: eu}
"""
METER = Meter(key="tokens", event_type="api.request", aggregation=Aggregation.SUM, value="$.tokens")
ROWS = [
    {"request": "r1", "user": "acme", "when": "2026-09-01 12:00:00", "tokens": "1.5"},
    {"request": "r2", "user": "acme", "when": "2026-09-01T13:00:00Z", "tokens": "2"},
    {"request": "r1", "user": "acme", "when": "2026-09-01 12:00:00", "tokens": "1.5"},
    {"request": "r2", "user": "acme", "when": "2026-09-01T13:00:00Z", "tokens": "3"},
    {"request": "r3", "user": "acme", "when": "yesterday", "tokens": "3"},
    {"request": "r4", "user": "acme", "when": "2026-09-01 14:00:00", "tokens": "many"},
    {"request": "", "user": "acme", "when": "2026-09-01 14:00:00", "tokens": "4"},
    {"request": "r5", "user": "acme", "when": "2026-09-01 14:00:00", "tokens": ""},
]


@pytest.fixture
def acme(world: World) -> World:
    world.publish(METER)
    world.customer("acme")
    return world


def mapping(text: str = MAPPING) -> FileMapping:
    found = read_mapping(text.encode())
    assert isinstance(found, FileMapping), found
    return found


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def take(world: World, path: Path, text: str = MAPPING, name: str = "july", **extra: Any) -> Any:
    return import_file(
        world.pool, world.organization_id, path, mapping(text), name, world.clock, new_id, **extra
    )


def counts(report: Any) -> tuple[int, int, int, int, int]:
    assert isinstance(report, ImportReport), report
    return (
        report.rows,
        report.accepted,
        report.duplicates,
        report.conflicts,
        report.rejected,
    )


def used(world: World, customer: str = "acme", meter: str = "tokens") -> Decimal:
    target = Target(customer, meter, at("2026-08-01"), at("2026-10-02"))
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        history = read_meters(connection, world.organization_id)[meter]
        found = read_quantities(connection, world.organization_id, history, [target])
    return sum((one.quantity for one in found if one.quantity is not None), Decimal(0))


def rejections(world: World, report: ImportReport, path: Path) -> list[tuple[int, str, str]]:
    write_rejections(world.pool, world.organization_id, report.import_id, path)
    return [
        (one["row"], one["code"], one["pointer"])
        for one in map(json.loads, path.read_text().splitlines())
    ]


def test_every_row_is_answered(acme: World, tmp_path: Path) -> None:
    report = take(acme, write_csv(tmp_path / "july.csv", ROWS))
    assert (8, 2, 1, 1, 4) == counts(report)
    assert "finished" == report.status
    assert Decimal("3.5") == used(acme)
    assert [
        (4, "conflict", ""),
        (5, "time_unreadable", "/time"),
        (6, "not_a_number", "/data/tokens"),
        (7, "id_missing", "/id"),
        (8, "value_missing", "/data/tokens"),
    ] == rejections(acme, report, tmp_path / "rejected.jsonl")


def test_twice_is_once(acme: World, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "july.csv", ROWS)
    first = take(acme, path)
    again = take(acme, path)
    assert counts(first) == counts(again)
    assert Decimal("3.5") == used(acme)


def test_names_keep_events_apart_unless_the_source_is_given(acme: World, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "july.csv", ROWS)
    given = MAPPING + "source: {constant: billing}"
    assert (8, 2, 1, 1, 4) == counts(take(acme, path, given, name="a"))
    assert (8, 0, 3, 1, 4) == counts(take(acme, path, given, name="b"))
    assert Decimal("3.5") == used(acme)
    assert (8, 2, 1, 1, 4) == counts(take(acme, path, name="c"))
    assert Decimal(7) == used(acme)


def test_local_time_is_that_of_the_zone(acme: World, tmp_path: Path) -> None:
    take(acme, write_csv(tmp_path / "july.csv", ROWS[:1]))
    with transaction(acme.pool, acme.organization_id) as connection:
        found = connection.execute("select time, source, id from event").fetchall()
    assert [(datetime(2026, 9, 1, 10, tzinfo=UTC), "import/july", "r1")] == found


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_every_format_reads_the_same(acme: World, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"usage.{kind}"
    numbers = [
        {"request": f"r{n}", "user": "acme", "when": f"2026-09-{n % 28 + 1:02}", "tokens": n / 8}
        for n in range(1, 300)
    ]
    texts = [{name: str(value) for name, value in row.items()} for row in numbers]
    if kind == "parquet":
        table = pyarrow.Table.from_pylist(numbers)
        pyarrow.parquet.write_table(table, path, row_group_size=70)
    else:
        plain = write_csv(tmp_path / "plain", texts).read_bytes()
        if kind.startswith("jsonl"):
            plain = "\n".join(json.dumps(row) for row in numbers).encode()
        path.write_bytes(gzip.compress(plain) if kind.endswith("gz") else plain)
    assert (299, 299, 0, 0, 0) == counts(take(acme, path))
    assert Decimal(299 * 300) / 16 == used(acme)


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_killed_import_goes_on(
    new_world: Callable[[], World],
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed before and after every commit, at every batch, it ends in the same state."""
    monkeypatch.setattr(command, "ROWS_A_BATCH", 7)
    rows = [
        {"user": "acme", "tokens": "x" if n % 10 == 3 else str(n), "when": "2026-09-01"}
        for n in range(60)
    ]
    path = tmp_path / f"usage.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=13)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        write_csv(path, rows)
    text = MAPPING.replace("id: request\n", "")
    original = command.RowTaker.take
    world = new_world()
    world.publish(METER)
    world.customer("acme")
    runs = 0
    while runs < 30:
        runs += 1
        calls = iter(range(100))

        def killed_before(*args: Any, calls: Any = calls, run: int = runs) -> Any:
            if next(calls) == run % 2:
                raise Killed
            return original(*args)

        def killed_after(*args: Any, calls: Any = calls) -> Any:
            done = original(*args)
            if next(calls) == 0:
                raise Killed
            return done

        monkeypatch.setattr(
            command.RowTaker, "take", killed_after if runs % 3 == 0 else killed_before
        )
        try:
            report = take(world, path, text)
        except Killed:
            continue
        assert (60, 54, 0, 0, 6) == counts(report)
        break
    assert 8 < runs < 30
    assert Decimal(sum(n for n in range(60) if n % 10 != 3)) == used(world)
    assert 6 == len(rejections(world, report, tmp_path / "rejected.jsonl"))
    assert 0 < report.resumed_after


def test_a_name_stands_for_one_file_and_one_mapping(acme: World, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "july.csv", ROWS)
    take(acme, path)
    other = write_csv(tmp_path / "other.csv", ROWS[:1])
    assert "file_changed" == take(acme, other).code
    assert "mapping_changed" == take(acme, path, MAPPING.replace("eu", "us")).code
    undo_by_name(acme.pool, acme.organization_id, "july", acme.now)
    assert "import_undone" == take(acme, path).code


def test_files_that_cannot_be_read_are_told(acme: World, tmp_path: Path) -> None:
    good = write_csv(tmp_path / "july.csv", ROWS)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(good.read_bytes())[:-20])
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    missing = write_csv(tmp_path / "missing.csv", [{"request": "r", "user": "u", "when": ""}])
    expected = {
        ("july.csv", "a name"): "name_invalid",
        ("july", "n1"): "format_unknown",
        ("nowhere.csv", "n2"): "file_unreadable",
        ("cut.csv.gz", "n3"): "file_unreadable",
        ("broken.parquet", "n4"): "file_unreadable",
        (missing.name, "n5"): "column_unknown",
    }
    found = {}
    for file, name in expected:
        refusal = take(acme, tmp_path / file, name=name)
        assert isinstance(refusal, FileRefusal), refusal
        found[file, name] = refusal.code
    assert expected == found


def test_rows_that_cannot_be_read_are_told(acme: World, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(
        b'{"user": "acme", "tokens": 1}\n\n[1]\n{"user"\n{"user": "a\\u0000"}\n'
        b'{"user": "\xff"}\n{"user": "acme", "tokens": 1e400}\n{"a": "' + b"x" * (1 << 20) + b'"}\n'
        b'{"user": "acme", "tokens": 2}'
    )
    text = MAPPING.replace("id: request\n", "").replace(", type: number", "")
    report = take(acme, path, text)
    assert (8, 2, 0, 0, 6) == counts(report)
    assert [
        (3, "row_malformed"),
        (4, "row_malformed"),
        (5, "null_character"),
        (6, "row_malformed"),
        (7, "number_out_of_range"),
        (8, "row_too_large"),
    ] == [one[:2] for one in rejections(acme, report, tmp_path / "rejected.jsonl")]


def test_csv_rows_that_cannot_be_read_are_told(acme: World, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(
        b"\xef\xbb\xbfrequest,user,when,tokens\nr1,acme,,1\n\nr2,acme,1\n"
        b'r3,"ac"me,,1\nr4,ac\xffme,,1\nr5,"two\nlines",,1\n'
    )
    report = take(acme, path)
    assert (5, 1, 0, 0, 4) == counts(report)
    assert [
        (2, "row_malformed"),
        (3, "row_malformed"),
        (4, "lone_surrogate"),
        (5, "subject_invalid"),
    ] == [one[:2] for one in rejections(acme, report, tmp_path / "rejected.jsonl")]


def test_lines_may_be_whole_events(acme: World, tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    event = acme.event("api.request", at("2026-09-01"), "acme", tokens=5)
    path.write_text(f"{json.dumps(event)}\n{json.dumps({**event, 'specversion': '0.3'})}\n")
    assert (2, 1, 0, 0, 1) == counts(take(acme, path, "events: cloudevents"))
    assert Decimal(5) == used(acme)


def test_a_row_that_names_a_draw_that_did_not_pay_is_told(acme: World, tmp_path: Path) -> None:
    pool = acme.pool_of("tokens", customer="acme")
    acme.grant(pool, 10)
    path = tmp_path / "drawn.ndjson"
    event = acme.event("api.request", at("2026-09-01"), "acme", tokens=5)
    draws = ("drw_1", acme.draw_id(pool))
    lines = [{**event, "id": draw, "fareboxdraw": draw} for draw in draws]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = take(acme, path, "events: cloudevents")
    assert (2, 1, 0, 0, 1) == counts(report)
    found = rejections(acme, report, tmp_path / "rejected.jsonl")
    assert [(1, "draw_unknown", "/fareboxdraw")] == found
    assert Decimal(5) == used(acme)


def test_nested_columns_are_read_by_path(acme: World, tmp_path: Path) -> None:
    path = tmp_path / "nested.parquet"
    rows = [{"at": at("2026-09-01"), "usage": {"tokens": 0.1}, "user": "acme"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    text = "type: {constant: api.request}\nsubject: user\ntime: at\ndata: {tokens: $.usage.tokens}"
    assert (1, 1, 0, 0, 0) == counts(take(acme, path, text))
    assert Decimal("0.1") == used(acme)


def test_old_events_may_be_imported(acme: World, tmp_path: Path) -> None:
    rows = [
        {"request": "old", "user": "acme", "when": "2019-01-01", "tokens": "1"},
        {"request": "new", "user": "acme", "when": "2026-10-03", "tokens": "1"},
    ]
    report = take(acme, write_csv(tmp_path / "old.csv", rows))
    assert [(2, "time_in_future", "/time")] == rejections(acme, report, tmp_path / "rejected")


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("data: {}", "/type"),
        ("type: [1]", "/type"),
        ("type: t\ndata: {a: {column: x, constant: 1}}", "/data/a"),
        ("type: t\ndata: {a: {}}", "/data/a"),
        ("type: t\ndata: {a: {column: '$.['}}", "/data/a"),
        ("type: t\ntime: {column: x, timezone: Mars}", "/time/timezone"),
        ("type: t\ncsv: {encoding: utf-16}", "/csv/encoding"),
        ("type: t\ncsv: {delimiter: ab}", "/csv/delimiter"),
        ("events: cloudevents\ntype: t", "/events"),
        ("events: cloudevents\nformat: csv", "/events"),
        ("type: t\nunknown: 1", ""),
    ],
)
def test_a_mapping_that_is_wrong_is_told_where(text: str, pointer: str) -> None:
    fault = read_mapping(text.encode())
    assert isinstance(fault, MappingFault), fault
    assert pointer == fault.pointer


def test_two_processes_do_not_import_the_same_rows(acme: World, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "july.csv", ROWS)
    other: list[Any] = []

    def meanwhile(_: Any) -> None:
        if not other:
            other.append(take(acme, path))

    monkey = take(acme, path, progress=meanwhile)
    assert isinstance(monkey, ImportRefusal)
    assert "import_under_way" == monkey.code
    assert (8, 2, 1, 1, 4) == counts(other[0])
    assert Decimal("3.5") == used(acme)


def test_the_page_says_every_code_and_its_mapping_reads() -> None:
    page = (Path(__file__).parents[2] / "docs" / "import.md").read_text()
    codes = {*ImportCode, *FileCode, *RowCode, *BackfillCode}
    assert set() == {code for code in codes if f"| `{code}` |" not in page}
    example = page.split("```yaml\n")[1].split("```")[0]
    assert isinstance(read_mapping(example.encode()), FileMapping)
