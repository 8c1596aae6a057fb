"""Simulated competition folders with known truth."""
