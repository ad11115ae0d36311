"""Farebox meters what customers use, gates it live and bills it exactly."""

__version__ = "0.1.0"
