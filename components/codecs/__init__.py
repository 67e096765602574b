"""Codecs: images <-> the targets of a pixel generator. To add one: its module here, and one member of the union."""
