"""Row-level security stands around every table, and the runtime role cannot step over it."""

from uuid import UUID

import psycopg
import pytest

from farebox.postgres.session import Pool, UnsafeRole, open_pool, transaction, unbound

WITHOUT_ORGANIZATION = {
    "schema_migration": "belongs to the installation; the runtime role may not touch it",
}
"""Tables that carry no organization, each with its reason."""

_TABLES = """
    select c.relname, c.relrowsecurity,
        exists (select from pg_attribute a where a.attrelid = c.oid
                and a.attname = 'organization_id' and a.attnotnull),
        (select array_agg(p.polname || ':' || pg_get_expr(p.polqual, p.polrelid) || ':'
            || pg_get_expr(p.polwithcheck, p.polrelid)) from pg_policy p where p.polrelid = c.oid),
        has_table_privilege('farebox_runtime', c.oid,
            'select, insert, update, delete, truncate, references, trigger'),
        c.relispartition
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'public' and c.relkind in ('r', 'p') order by c.relname"""

_POLICY = "(organization_id = ( SELECT current_organization() AS current_organization))"


def test_every_table_is_bound_to_its_organization(owner_url: str) -> None:
    with psycopg.connect(owner_url) as connection:
        tables = connection.execute(_TABLES).fetchall()
    assert len(tables) > 15
    for name, protected, owned, policies, reachable, partition in tables:
        if name in WITHOUT_ORGANIZATION or partition:
            # A partition is reached through its parent, whose policy then holds.
            assert not reachable, name
            continue
        assert protected, f"{name} has no row-level security"
        assert owned, f"{name} has no organization_id"
        assert [f"one_organization:{_POLICY}:{_POLICY}"] == policies, name


def test_no_view_steps_around_the_policies(owner_url: str) -> None:
    """A view runs as its owner, whom no policy binds, unless it says security_invoker."""
    with psycopg.connect(owner_url) as connection:
        views = connection.execute(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = 'public' and c.relkind in ('v', 'm')"
            " and not coalesce('security_invoker=true' = any(c.reloptions), false)"
        ).fetchall()
    assert [] == views


def test_functions_that_step_over_are_few_and_closed(owner_url: str) -> None:
    with psycopg.connect(owner_url) as connection:
        rows = connection.execute(
            "select p.proname, p.proconfig, has_function_privilege('public', p.oid, 'execute')"
            " from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname = 'public' and p.prosecdef order by 1"
        ).fetchall()
    assert {
        "count_organizations",
        "create_organization",
        "ensure_event_partition",
        "find_api_key",
        "organizations_to_fold",
    } <= {name for name, _, _ in rows}
    for name, settings, public in rows:
        assert ["search_path=public, pg_temp"] == settings, name
        assert not public, name


def test_the_runtime_role_owns_nothing_and_bypasses_nothing(owner_url: str) -> None:
    with psycopg.connect(owner_url) as connection:
        roles = connection.execute(
            "select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication"
            " from pg_roles where rolname in ('farebox_runtime', 'farebox_app')"
        ).fetchall()
        owned = connection.execute(
            "select count(*) from pg_class where pg_get_userbyid(relowner)"
            " in ('farebox_runtime', 'farebox_app') and relpersistence <> 't'"
        ).fetchone()
    assert [(False,) * 5] * 2 == roles
    assert (0,) == owned


def test_the_owner_and_a_superuser_are_refused_as_runtime(
    owner_url: str, superuser_url: str
) -> None:
    for url in (owner_url, superuser_url):
        with pytest.raises(UnsafeRole):
            open_pool(url, size=1)


def test_without_an_organization_there_is_nothing(pool: Pool, organization_id: UUID) -> None:
    with unbound(pool) as connection:
        assert (0,) == connection.execute("select count(*) from organization").fetchone()
        assert 0 == connection.execute("update organization set name = 'x'").rowcount


def test_a_row_of_another_organization_is_neither_read_nor_written(
    pool: Pool, new_organization: "type[UUID]"
) -> None:
    own, other = new_organization(), new_organization()
    with transaction(pool, own) as connection:
        rows = connection.execute("select organization_id from organization").fetchall()
        assert [(own,)] == rows
        changed = connection.execute(
            "update organization set name = 'x' where organization_id = %s", (other,)
        )
        assert 0 == changed.rowcount
    with pytest.raises(psycopg.errors.InsufficientPrivilege), transaction(pool, own) as connection:
        connection.execute("insert into watermark values (%s, 0, now())", (other,))


@pytest.mark.parametrize(
    "statement",
    [
        "alter table customer disable row level security",
        "drop policy one_organization on customer",
        "truncate customer",
        "set role farebox_owner",
        "set session authorization farebox_owner",
        "select * from schema_migration",
        "select * from event_default",
        "alter role farebox_app bypassrls",
        "create function public.f() returns int language sql as 'select 1'",
    ],
)
def test_the_runtime_role_cannot_take_the_walls_down(
    pool: Pool, organization_id: UUID, statement: str
) -> None:
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        transaction(pool, organization_id) as connection,
    ):
        connection.execute(statement)
