"""The pictures of a collection: sources, the lock, splits, facts."""
