"""Alerts: rules that watch pools, and when each of them fires and clears."""
