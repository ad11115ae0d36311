"""The HTTP API, one file a noun, and the console's pages."""
