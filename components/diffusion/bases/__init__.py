"""Base distributions p(x_T) that are fitted: where the forward process ends, near the data instead of at N(0, I)."""
