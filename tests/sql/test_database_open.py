"""Opening the database: the embedded one comes up migrated, for every process the same."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from farebox.postgres.database import open_database
from farebox.postgres.session import open_pool, refuse_unsafe_role, unbound


@pytest.fixture
def data_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("farebox")
    for parent in (directory, *directory.parents):
        if parent.stat().st_uid == directory.stat().st_uid:
            parent.chmod(parent.stat().st_mode | 0o111)
    return directory / "data"


def test_the_embedded_database_is_ready_and_the_same_at_the_next_start(
    data_directory: Path,
) -> None:
    with open_database(None, None, data_directory) as urls:
        assert urls.owner is not None
        pool = open_pool(urls.runtime, size=1)
        with unbound(pool) as connection:
            refuse_unsafe_role(connection)
            connection.execute("select create_organization(gen_random_uuid(), 'a', 'A', now())")
        pool.close()
        secrets = (data_directory / "roles.json").read_text()
        mode = stat.S_IMODE((data_directory / "roles.json").stat().st_mode)
        assert oct(0o600) == oct(mode)
        # More processes join it at once; each finds the same passwords.
        with ThreadPoolExecutor(3) as threads:
            assert [urls.runtime] * 3 == list(
                threads.map(lambda _: joined(data_directory), range(3))
            )
    with open_database(None, None, data_directory) as again:
        assert secrets == (data_directory / "roles.json").read_text()
        with psycopg.connect(again.runtime) as connection:
            assert (1,) == connection.execute("select count_organizations()").fetchone()
    assert [] == list(data_directory.glob("roles.json.*"))


def joined(data_directory: Path) -> str:
    with open_database(None, None, data_directory) as urls:
        with psycopg.connect(urls.runtime) as connection:
            assert (1,) == connection.execute("select count_organizations()").fetchone()
        return urls.runtime


def test_a_database_of_ones_own_is_migrated_where_its_owner_is_known(
    owner_url: str, runtime_url: str, tmp_path: Path
) -> None:
    with open_database(runtime_url, owner_url, tmp_path / "unused") as urls:
        assert (runtime_url, owner_url) == (urls.runtime, urls.owner)
    with open_database(runtime_url, None, tmp_path / "unused") as urls:
        assert (runtime_url, None) == (urls.runtime, urls.owner)
    assert not (tmp_path / "unused").exists()
