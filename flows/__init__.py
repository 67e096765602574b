"""Orchestration of the RCG pipeline: DVC stages, executors, tracking, the `rcg` command. Knows no maths."""
