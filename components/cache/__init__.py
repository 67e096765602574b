"""What training reads: the shards of encode, and the samples."""
