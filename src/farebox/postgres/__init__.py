"""All SQL, in full view: one file a noun, functions from a connection and values to values."""
