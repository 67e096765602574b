"""Runs in the store: records and commit, leases, events, transfer, and the workspace that shows them."""
