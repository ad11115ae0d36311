"""The embedded PostgreSQL, for an installation that names no server of its own.

`supervisor.open_server` is the way in: it starts the server of a data directory or joins the one
that runs there, and the last of its users to leave stops it. `temporary.temporary_server` does
the same in a directory that vanishes afterwards. docs/embedded-postgresql.md has the picture.
"""
