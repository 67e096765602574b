"""Names and digests of what goes in and comes out: artifacts, fingerprints, code."""
