"""Pixels: decoding, views, augmentation."""
