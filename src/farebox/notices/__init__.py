"""Notices: what other systems are told when something happened, and when to try again."""
