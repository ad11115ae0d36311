"""Billing periods: half-open spans of instants, cut in the customer's time zone."""
