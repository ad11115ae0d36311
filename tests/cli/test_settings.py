"""Settings: what the environment leaves out has a default, and what cannot be meant is refused."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from farebox.cli.runtime import open_runtime
from farebox.cli.settings import read_settings
from farebox.postgres.server.account import default_data_directory


def test_nothing_set_is_the_embedded_database_on_this_machine() -> None:
    settings = read_settings({})
    assert (None, None, "127.0.0.1", 8377, default_data_directory()) == (
        settings.database_url,
        settings.owner_database_url,
        settings.host,
        settings.port,
        settings.data_directory,
    )


def test_what_is_set_counts_and_what_is_empty_does_not() -> None:
    settings = read_settings(
        {
            "FAREBOX_DATABASE_URL": "postgresql://db/farebox",
            "FAREBOX_OWNER_DATABASE_URL": "",
            "FAREBOX_DATA": "relative/data",
            "FAREBOX_HOST": "",
            "FAREBOX_PORT": "80",
        }
    )
    assert ("postgresql://db/farebox", None, "127.0.0.1", 80) == (
        settings.database_url,
        settings.owner_database_url,
        settings.host,
        settings.port,
    )
    assert Path("relative/data").absolute() == settings.data_directory


def test_a_home_directory_is_understood() -> None:
    assert Path.home() / "farebox" == read_settings({"FAREBOX_DATA": "~/farebox"}).data_directory


@pytest.mark.parametrize("port", ["abc", "0", "-1", "65536", "80.0", " 80", "８０", "1e3"])
def test_a_port_that_is_none_is_refused_by_name(port: str) -> None:
    with pytest.raises(SystemExit, match="FAREBOX_PORT") as refused:
        read_settings({"FAREBOX_PORT": port})
    assert repr(port) in str(refused.value)


@pytest.mark.parametrize(("text", "expected"), [("", False), ("false", False), ("true", True)])
def test_private_addresses_are_for_who_says_true(text: str, expected: bool) -> None:
    settings = read_settings({"FAREBOX_WEBHOOK_PRIVATE_ADDRESSES": text})
    assert expected is settings.webhook_private_addresses
    assert not read_settings({}).webhook_private_addresses


@pytest.mark.parametrize("text", ["yes", "1", "True", " true", "off"])
def test_what_is_neither_true_nor_false_is_refused_by_name(text: str) -> None:
    with pytest.raises(SystemExit, match="FAREBOX_WEBHOOK_PRIVATE_ADDRESSES must be true or false"):
        read_settings({"FAREBOX_WEBHOOK_PRIVATE_ADDRESSES": text})


def test_an_owner_without_its_database_is_refused(tmp_path: Path) -> None:
    """Else an embedded database would start, and whoever set the URL would never know."""
    settings = replace(
        read_settings({}), owner_database_url="postgresql://db/farebox", data_directory=tmp_path
    )
    with (
        pytest.raises(SystemExit, match="FAREBOX_DATABASE_URL is not"),
        open_runtime(settings),
    ):
        raise AssertionError("it opened")
    assert [] == list(tmp_path.iterdir())
