"""Exact amounts: currencies, the decimal context and the one place that rounds."""
