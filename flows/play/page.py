"""The page: a tab for each thing that the bundle can do."""

from pathlib import Path
from typing import Any

import gradio as gr

from flows.play.drawing import Artist
from flows.play.edit_tab import EditTab
from flows.play.forms import Fields, Result, Shelf, class_field, counts, options, picture_field

STYLE = Path(__file__).with_name("page.css")


def build(artist: Artist, folder: Path) -> gr.Blocks:
    """The page on top of a bundle. Files that it shows lie in `folder`."""
    can, shelf = artist.can, Shelf(folder)
    digest = artist.bundle.digest
    with gr.Blocks(title="rcg play", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(f"## rcg play\n`{artist.bundle.folder}` · {artist.px} pixels · content `{digest[:10]}`")
        with gr.Tabs():
            if can.plain:
                _plain_tab(artist, shelf)
            if can.text:
                _text_tab(artist, shelf)
            if can.pictures:
                _like_tab(artist, shelf)
                _between_tab(artist, shelf)
            EditTab(artist, shelf)
            if can.upscale:
                _upscale_tab(artist, shelf)
    page.queue(default_concurrency_limit=1, max_size=32)
    return page


def _plain_tab(artist: Artist, shelf: Shelf) -> None:
    with gr.Tab("Sample", id="sample"), gr.Row():
        with gr.Column(scale=1, min_width=280):
            fields = class_field(artist) | counts(n=16) | options(artist)
            button = gr.Button("Draw", variant="primary")
        with gr.Column(scale=3):
            Result(artist, shelf).draws(button, fields, name="sample")


def _text_tab(artist: Artist, shelf: Shelf) -> None:
    with gr.Tab("Prompt", id="prompt"), gr.Row():
        with gr.Column(scale=1, min_width=280):
            fields: Fields = {"text": gr.Textbox(label="Text", placeholder="What the pictures show")}
            fields |= counts() | options(artist)
            if artist.can.pictures and artist.can.free:
                with gr.Accordion("And like a picture", open=False):
                    fields["like"] = picture_field(artist, "Picture")
                    fields["share"] = gr.Slider(0, 1, 0.5, step=0.01, label="Share of the picture")
            button = gr.Button("Draw", variant="primary")
        with gr.Column(scale=3):
            Result(artist, shelf).draws(button, fields, name="prompt", needs="text")


def _like_tab(artist: Artist, shelf: Shelf) -> None:
    with gr.Tab("Variations", id="variations"), gr.Row():
        with gr.Column(scale=1, min_width=280):
            fields: Fields = {"like": picture_field(artist, "Picture")} | counts(n=8) | options(artist)
            button = gr.Button("Draw", variant="primary")
        with gr.Column(scale=3):
            Result(artist, shelf).draws(button, fields, name="variations", needs="like")


def _between_tab(artist: Artist, shelf: Shelf) -> None:
    with gr.Tab("Between two", id="between"), gr.Row():
        with gr.Column(scale=1, min_width=280):
            with gr.Row():
                a, b = (picture_field(artist, name) for name in ("First picture", "Second picture"))
            share = gr.Slider(0, 1, 0.5, step=0.01, label="Share of the second", buttons=[])
            fields: dict[str, Any] = {"a": a, "b": b, "share": share} | counts() | options(artist)
            with gr.Row():
                here = gr.Button("Draw here", variant="primary")
                way = gr.Button("Draw the way")
        with gr.Column(scale=3):
            result = Result(artist, shelf)
            result.draws(here, fields, name="between", needs="a", more=[share.release])
            result.draws(way, {k: v for k, v in fields.items() if k != "share"}, name="way", needs="a")


def _upscale_tab(artist: Artist, shelf: Shelf) -> None:
    upsampler = artist.bundle.card.sampling.upsampler
    with gr.Tab("Upscale", id="upscale"), gr.Row():
        with gr.Column(scale=1, min_width=280):
            fields: Fields = {"image": picture_field(artist, "Picture")} | counts(n=1)
            if upsampler is not None:
                fields["noise"] = gr.Number(upsampler.noise, label="Noise that is added first", minimum=0, maximum=1)
            button = gr.Button("Make it larger", variant="primary")
        with gr.Column(scale=3):
            Result(artist, shelf, label="Larger").draws(button, fields, name="upscale", needs="image")
