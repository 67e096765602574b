"""One module per verb of `rcg`."""
