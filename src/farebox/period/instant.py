"""The ends of time: finite instants that stand for always before and for ever after."""

from datetime import UTC, datetime

BEGINNING = datetime(1, 1, 2, tzinfo=UTC)
"""Before every event; a first version is in force from here."""

END = datetime(9999, 12, 30, tzinfo=UTC)
"""After every event; what is open ends here."""
