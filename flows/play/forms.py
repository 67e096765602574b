"""The parts of the page that its tabs share: fields of a request, given pictures, and what was drawn."""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from components.bundle.request import Picture, Request
from components.errors import RcgError
from components.files import write_whole
from flows.lineage.sampling import open_picture
from flows.play.asking import MOST, asked
from flows.play.drawing import Artist, Progress
from flows.play.editing import canvas

Fields = dict[str, gr.components.Component]
ONE_AT_A_TIME = {"concurrency_id": "model", "concurrency_limit": 1}


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """An error that is meant for a person is shown on the page, in full, and nowhere else."""

    @wraps(function)  # Gradio reads the annotations
    def call(*values: Any) -> Any:
        try:
            return function(*values)
        except RcgError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    return call


def told_of_each(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same of an iterator."""

    @wraps(function)
    def call(*values: Any) -> Iterator[Any]:
        try:
            yield from function(*values)
        except RcgError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    return call


def status_line(progress: Progress) -> str:
    done, n = len(progress.pictures), progress.n
    return f"{done} of {n} picture(s), {progress.seconds:.1f} s"


class Shelf:
    """Files that the page shows and lets download, as they are; they go when the server ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, picture: Picture) -> str:
        """The path of a picture's file, under the name of the picture."""
        path = self._folder / picture.sha256[:16] / picture.name
        if not path.is_file():
            write_whole(path, picture.data)
        return str(path)

    def all(self, pictures: tuple[Picture, ...]) -> list[str]:
        return [self(picture) for picture in pictures]


def counts(*, n: int = 4) -> Fields:
    """How many, and the seed."""
    with gr.Row():
        return {
            "n": gr.Number(n, label="Pictures", precision=0, minimum=1, maximum=MOST, min_width=80),
            "seed": gr.Number(0, label="Seed", precision=0, minimum=0, min_width=80),
        }


def options(artist: Artist) -> Fields:
    """What a request may change of how it is sampled; the values that stand there are the bundle's."""
    can, sampling = artist.can, artist.bundle.card.sampling
    fields: Fields = {}
    with gr.Accordion("How it is sampled", open=False):
        fields["steps"] = gr.Number(sampling.pixels.steps, label="Steps", precision=0, minimum=1)
        if can.guidance:
            fields["guidance"] = gr.Number(
                sampling.pixels.guidance, label="Guidance", info="Classifier-free; 0 is off.", minimum=0
            )
        if can.rdm_guidance and sampling.rdm is not None:
            fields["rdm_guidance"] = gr.Number(
                sampling.rdm.guidance, label="Guidance of the representation", info="0 is off.", minimum=0
            )
        if can.guide:
            guided = getattr(sampling, artist.bundle.system.guided or "", None)
            scale = guided.guide.scale if guided is not None and guided.guide is not None else 0
            fields["guide_scale"] = gr.Number(
                scale, label="Scale of the guide", info="How strongly it pulls; 0 is off.", minimum=0
            )
    if can.upscale:
        fields["large"] = gr.Checkbox(label="Large: with the upsampler")
    return fields


def class_field(artist: Artist, label: str = "Class") -> Fields:
    """A choice among the classes, where the bundle has some."""
    if not artist.can.classes:
        return {}
    return {"class_name": gr.Dropdown([("any", ""), *((c, c) for c in artist.can.classes)], value="", label=label)}


def picture_field(artist: Artist, label: str) -> gr.File:
    """A file that is given, with its center square, which is what the model sees, below."""
    file = gr.File(label=label, type="filepath", height=120)
    seen = gr.Image(
        label="Its center square, at the model's size",
        interactive=False,
        format="png",
        height=180,
        visible=False,
        buttons=[],
        elem_classes=["pixels"],
    )

    def show(path: str | None) -> Any:
        if path is None:
            return gr.update(value=None, visible=False)
        given = open_picture(Path(path))
        square = canvas(Picture(given.data, Path(path).name), artist.bundle.card.decode, artist.px)
        return gr.update(value=square, visible=True)

    file.change(told(show), file, seen, show_progress="hidden", api_visibility="private")
    return file


class Result:
    """Pictures that were drawn, what is being done, and a button that ends it."""

    def __init__(self, artist: Artist, shelf: Shelf, *, label: str = "Pictures", height: int = 440) -> None:
        self._artist, self._shelf = artist, shelf
        small = artist.px < 128
        self.gallery = gr.Gallery(
            label=label,
            format="png",
            columns=4,
            object_fit="contain",
            height=height,
            interactive=False,
            buttons=["download", "download_all", "fullscreen"],
            elem_classes=["pixels", "four"] if small else ["four"],
        )
        with gr.Row():
            self.status = gr.Markdown("")
            self.stop = gr.Button("Stop", size="sm", scale=0, min_width=80)

    def draws(
        self, button: gr.Button, fields: Mapping[str, Any], *, name: str, needs: str | None = None, more: Any = ()
    ) -> None:
        """The button draws what the fields ask for, and so do `more` events.

        `needs`: the field that must not be empty.
        """
        names = list(fields)

        def draw(*values: Any) -> Iterator[Any]:
            yield from self.steps(asked(dict(zip(names, values, strict=True)), needs=needs))

        event = gr.on(
            [button.click, *more],
            told_of_each(draw),
            list(fields.values()),
            [self.gallery, self.status],
            show_progress="hidden",
            api_name=name,
            **ONE_AT_A_TIME,
        )
        self.stop.click(None, None, None, cancels=[event])

    def steps(self, request: Request) -> Iterator[tuple[Any, str]]:
        """What gallery and status line show while a request is drawn, and in the end."""
        shown: tuple[Picture, ...] = ()
        for progress in self._artist.draw(request):
            fresh, shown = progress.pictures != shown, progress.pictures
            yield (self._shelf.all(shown) if fresh else gr.skip()), status_line(progress)
