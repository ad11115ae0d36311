"""Requests that arrive together become one flow call."""
