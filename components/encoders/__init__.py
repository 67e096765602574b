"""Frozen encoders: the union of their configs is the registry."""
