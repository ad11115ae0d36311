"""The embedded PostgreSQL: started, supervised and stopped here."""
