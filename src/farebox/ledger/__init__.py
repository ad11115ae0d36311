"""Pools of units on one double-entry ledger: who may take what, and where every unit went."""
