"""The verbs of `rcg`: one module per command, named as the command. They alone print, and each builds the Project once.

`rcg --help` loads all of them, so they stay light: at the top they import typer and the standard library, and the
function imports the room that does the work.
"""
