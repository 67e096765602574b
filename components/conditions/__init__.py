"""Conditions of a generator: what each reads, how it is embedded, and the port by which it enters a network."""
