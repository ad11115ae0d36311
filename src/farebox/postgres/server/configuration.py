"""The server's settings: durable without exception, sized for a small machine, open to change."""

import re
from collections.abc import Mapping

from farebox.postgres.server.layout import PORT, Layout, write_whole
from farebox.postgres.server.refusal import ServerCode, ServerError

# Given on the command line, where neither a file nor ALTER SYSTEM can override them. An
# acknowledged event survives a power cut only while all of these are on.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}

DEFAULTS = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "wal_buffers": "16MB",
    # A new segment filled with zeros holds up every commit for as long as writing 16 MB takes.
    "wal_init_zero": "off",
    "min_wal_size": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    # Rollups and pools are updated often: visit them early and often, with small steps.
    "autovacuum_naptime": "20s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
    "autovacuum_vacuum_insert_scale_factor": "0.1",
    "timezone": "UTC",
}

# What the supervisor itself relies on, or what would give up data.
_RESERVED = frozenset(
    (
        *DURABLE,
        "allow_system_table_mods",
        "config_file",
        "data_directory",
        "external_pid_file",
        "hba_file",
        "ident_file",
        "ignore_checksum_failure",
        "ignore_invalid_pages",
        "include",
        "include_dir",
        "include_if_exists",
        "lc_messages",
        "listen_addresses",
        "log_destination",
        "log_directory",
        "logging_collector",
        "password_encryption",
        "port",
        "unix_socket_directories",
        "unix_socket_permissions",
        "zero_damaged_pages",
    )
)

_AUTHENTICATION = "local all all scram-sha-256\nlocal replication all scram-sha-256\n"


def check_settings(settings: Mapping[str, str]) -> None:
    """Refuse by name what must not be set from outside."""
    for name, value in settings.items():
        if name.lower() in _RESERVED:
            raise ServerError(
                ServerCode.SETTING_REFUSED,
                f"{name} is fixed: the embedded server is always durable and reached only "
                "through its own socket.",
            )
        if re.fullmatch(r"[A-Za-z_][\w.]*", name) is None or re.search(r"[\r\n\0]", value):
            raise ServerError(
                ServerCode.SETTING_REFUSED,
                f"{name!r} = {value!r} cannot stand in postgresql.conf: a name is a word, and a "
                "value has no line breaks.",
            )


def write_configuration(layout: Layout, settings: Mapping[str, str]) -> None:
    """Write the files that the server reads at its start, in place of those of the last one."""
    fixed = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(layout.socket),
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        "cluster_name": "farebox",
        "lc_messages": "C",
        "log_destination": "stderr",
        "logging_collector": "on",
        "log_directory": str(layout.log),
        # A file a weekday: the log of a week is kept, and never more.
        "log_filename": "postgresql-%a.log",
        "log_rotation_age": "1d",
        "log_rotation_size": "0",
        "log_truncate_on_rotation": "on",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "log_timezone": "UTC",
    }
    chosen = {name.lower(): value for name, value in settings.items()}
    lines = [
        f"{name} = {_quoted(value)}" for name, value in {**fixed, **DEFAULTS, **chosen}.items()
    ]
    heading = "# Written by Farebox at each start; changes here are lost.\n"
    write_whole(layout.configuration, heading + "\n".join(lines) + "\n", mode=0o644)
    write_whole(layout.authentication, _AUTHENTICATION, mode=0o644)


def start_options(layout: Layout) -> list[str]:
    """Return the command line of a server of this data directory, after its `-D`."""
    files = {"config_file": str(layout.configuration), "hba_file": str(layout.authentication)}
    return [word for pair in {**files, **DURABLE}.items() for word in ("-c", "=".join(pair))]


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
