"""The servable model: system, requests, provenance."""
