"""`rcg evaluate`: any sets of pictures against any reference, outside of the pipeline."""
