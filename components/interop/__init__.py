"""Reading and writing the reference implementations' checkpoint files.

layout: what a layout is, and how a stage adopts a file; one module per family of layouts; checkpoint: all of them at
once. Nothing here is imported from this package's top, so that a stage depends on its own layouts alone.
"""
