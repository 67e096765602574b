"""Generators: p(what is made given conditions). How each is trained and sampled, whatever its network."""
