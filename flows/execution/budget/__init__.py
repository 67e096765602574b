"""What a time budget buys on this machine: look at the pictures, time the parts, size every stage. See `rcg init`."""
