"""The command line: what it offers, and what it says where it was not meant."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from farebox import __version__
from farebox.cli.main import _settings, _utc, app

COMMANDS = {"serve", "demo", "apply", "bill", "doctor", "migrate", "quote", "llm-prices"}


def run(*words: str) -> int | str | None:
    """Run a command and return the code, or the words, with which it ended."""
    with pytest.raises(SystemExit) as ended:
        app(list(words))
    return ended.value.code


def test_every_command_is_offered_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") in (0, None)
    shown = capsys.readouterr().out
    assert set() == {command for command in COMMANDS if f" {command} " not in shown}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") in (0, None)
    assert f"Usage: farebox {command}" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") in (0, None)
    assert __version__ == capsys.readouterr().out.strip()


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bil") not in (0, None)
    shown = capsys.readouterr()
    assert "bil" in shown.out + shown.err


def test_migrating_needs_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAREBOX_OWNER_DATABASE_URL", raising=False)
    assert "FAREBOX_OWNER_DATABASE_URL" in str(run("migrate"))


def test_migrating_twice_says_that_all_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], owner_url: str
) -> None:
    monkeypatch.setenv("FAREBOX_OWNER_DATABASE_URL", make_conninfo(owner_url))
    assert run("migrate") in (0, None)
    assert "The schema is the newest already." == capsys.readouterr().out.strip()


def test_a_quote_is_printed_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "quote.json"
    file.write_text(
        json.dumps(
            {
                "currency": "EUR",
                "price": {"model": "per_unit", "unit": "0.10"},
                "usage": [{"quantity": "3"}],
            }
        )
    )
    assert run("quote", str(file)) in (0, None)
    line, *_ = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert ("line", "0.30", "EUR") == (line["type"], line["amount"], line["currency"])


def test_what_is_said_on_the_command_line_counts_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAREBOX_PORT", "1000")
    monkeypatch.setenv("FAREBOX_HOST", "10.0.0.1")
    monkeypatch.setenv("FAREBOX_DATA", str(tmp_path / "environment"))
    settings = _settings("0.0.0.0", 2000, tmp_path)
    assert ("0.0.0.0", 2000, tmp_path) == (settings.host, settings.port, settings.data_directory)
    settings = _settings()
    assert ("10.0.0.1", 1000, tmp_path / "environment") == (
        settings.host,
        settings.port,
        settings.data_directory,
    )


def test_an_instant_without_offset_is_utc() -> None:
    naive = datetime.fromisoformat("2026-10-01T00:00")
    assert datetime(2026, 10, 1, tzinfo=UTC) == _utc(naive)
    berlin = datetime(2026, 10, 1, tzinfo=timezone(timedelta(hours=2)))
    assert berlin is _utc(berlin)
    assert None is _utc(None)
