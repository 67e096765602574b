"""The tab where a picture is edited: paint, fill, choose, go on, undo."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from components.bundle.edits import read_square
from components.bundle.request import Picture
from components.errors import ConfigError
from flows.lineage.sampling import open_picture
from flows.play.asking import asked, edit_of
from flows.play.drawing import Artist
from flows.play.editing import CANVAS_PX, History, canvas, mask_of
from flows.play.forms import (
    ONE_AT_A_TIME,
    Fields,
    Result,
    Shelf,
    class_field,
    counts,
    options,
    picture_field,
    told,
    told_of_each,
)

_PAINT = "rgba(220, 38, 38, 0.6)"


class EditTab:
    """GLIDE's refinement in steps (2112.10741, figure 2): each filling is the picture of the next."""

    def __init__(self, artist: Artist, shelf: Shelf) -> None:
        self._artist, self._shelf = artist, shelf
        self._recipe, large = artist.bundle.card.decode, artist.bundle.system.upsampler
        self._px = artist.px if large is None else large.spec.shape[-1]
        with gr.Tab("Edit", id="edit"):
            self._history = gr.State(None)
            with gr.Row():
                self._ask()
                self._paint()
                self._look()
        self._connect()

    def _ask(self) -> None:
        """What to fill in, and how."""
        can, sampling = self._artist.can, self._artist.bundle.card.sampling.pixels
        self._usual = getattr(sampling, "repaint", None) or 1
        with gr.Column(scale=2, min_width=260):
            self._file = gr.File(label="Picture", type="filepath", height=120)
            fields: Fields = {"text": gr.Textbox(label="Text: what is filled in")} if can.text else {}
            fields |= class_field(self._artist, "Class that is filled in") | counts()
            if can.free:
                fields["free"] = gr.Checkbox(label="Anything that fits, not only what suits the picture as it was")
            if sampling.kind == "diffusion":
                fields["repaint"] = gr.Number(
                    self._usual,
                    label="Repaint",
                    info="Take each step so often, which ties the parts together.",
                    precision=0,
                    minimum=1,
                )
            fields |= options(self._artist)
            if can.pictures:
                with gr.Accordion("Fill in what suits another picture", open=False):
                    fields["like"] = picture_field(self._artist, "Other picture")
            self._fields = fields

    def _paint(self) -> None:
        with gr.Column(scale=4, min_width=360):
            self._editor = gr.ImageEditor(
                label="Paint over what is to be filled",
                type="numpy",
                format="png",
                sources=(),
                transforms=(),
                layers=False,
                canvas_size=(CANVAS_PX, CANVAS_PX),
                buttons=[],
                height=620,
                brush=gr.Brush(default_size=48, colors=[_PAINT], default_color=_PAINT, color_mode="fixed"),
                elem_classes=["pixels"] if self._artist.px < 128 else [],
            )
            with gr.Row():
                self._fill = gr.Button("Fill", variant="primary")
                self._undo = gr.Button("Undo the last filling")

    def _look(self) -> None:
        with gr.Column(scale=3, min_width=300):
            self._result = Result(self._artist, self._shelf, label="Filled: click on the one to go on with", height=280)
            self._way = gr.Gallery(
                label="Steps so far",
                columns=6,
                height=140,
                object_fit="contain",
                interactive=False,
                format="png",
                allow_preview=False,
                buttons=["download_all"],
                elem_classes=["pixels"],
                fit_columns=False,
            )
            self._sources = gr.Files(
                label="What the last filling was made of, for rcg verify", interactive=False, height=120, visible=False
            )

    def _connect(self) -> None:
        shown = [self._history, self._editor, self._way, self._sources]
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        gallery, status = self._result.gallery, self._result.status
        self._file.change(told(self._begin), self._file, [*shown, gallery, status], api_name="begin", **quiet)
        filled = self._fill.click(
            told_of_each(self._filled),
            [self._history, self._editor, *self._fields.values()],
            [*shown, gallery, status],
            api_name="fill",
            **quiet,
            **ONE_AT_A_TIME,
        )
        self._result.stop.click(None, None, None, cancels=[filled])
        gallery.select(told(self._chosen), self._history, shown, api_visibility="private", **quiet)
        self._undo.click(told(self._undone), self._history, [*shown, gallery, status], api_name="undo", **quiet)

    def _begin(self, path: str | None) -> tuple[Any, ...]:
        """Edit a given picture."""
        if path is None:
            return None, None, None, gr.update(value=None, visible=False), None, ""
        given = Picture(open_picture(Path(path)).data, Path(path).name)
        read_square(given, self._recipe, self._artist.px)  # refuses what is too small to edit
        return (*self._shown(History.of(given)), None, "")

    def _shown(self, history: History) -> tuple[History, Any, list[str], Any]:
        """What state, editor, steps and sources show of a history; paint goes."""
        square = canvas(history.picture, self._recipe, self._px)
        painting = {"background": square, "layers": [], "composite": square}
        sources = self._shelf.all(history.sources)
        return history, painting, self._shelf.all(history.way), gr.update(value=sources, visible=bool(sources))

    def _filled(self, history: History | None, painting: dict[str, Any] | None, *values: Any) -> Iterator[Any]:
        if history is None:
            raise ConfigError("there is no picture to edit", got="none", fix="give a picture first")
        named = dict(zip(self._fields, values, strict=True))
        layers = (painting or {}).get("layers") or []
        over = [layer[..., 3] > 0 for layer in layers]
        painted = np.logical_or.reduce(over) if over else np.zeros((1, 1), dtype=bool)
        mask = mask_of(painted, history.picture, self._recipe)
        request = asked(named, edit_of(named, history.picture, mask, self._usual))
        pictures: tuple[Picture, ...] = ()
        for progress in self._artist.draw(request):
            pictures = progress.pictures
            yield (*([gr.skip()] * 5), f"{len(pictures)} of {progress.n} picture(s), {progress.seconds:.1f} s")
        filled = history.filled(mask, pictures)
        yield (*self._shown(filled), self._shelf.all(pictures), f"step {len(filled.steps) - 1}")

    def _chosen(self, history: History | None, chosen: gr.SelectData) -> tuple[Any, ...]:
        if history is None:
            return (gr.skip(),) * 4
        return self._shown(history.choose(chosen.index))

    def _undone(self, history: History | None) -> tuple[Any, ...]:
        """The picture before the last filling, and the pictures that it was chosen from."""
        if history is None:
            return (gr.skip(),) * 6
        before = history.undone()
        last = before.steps[-1]
        pictures = self._shelf.all(last.pictures) if last.mask is not None else None
        return (*self._shown(before), pictures, f"step {len(before.steps) - 1}")
