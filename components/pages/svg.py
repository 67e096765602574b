"""SVG elements whose texts and attributes are escaped, and a finished drawing of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

_STYLE = Path(__file__).with_name("drawing.css")


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. `class_` stands for class, `stroke_width` for stroke-width; floats get one decimal, None is left out.

    Children that are no markup are escaped.
    """
    shown = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), f"{v:.1f}" if isinstance(v, float) else v)
        for key, v in attributes.items()
        if v is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, shown, Markup("").join(children))  # type: ignore[arg-type]


def text(x: float, y: float, words: str, anchor: str = "middle") -> Markup:
    """One line of text."""
    return tag("text", words, x=float(x), y=float(y), text_anchor=anchor)


@dataclass(frozen=True)
class Drawing:
    """Elements in a box. In a page it scales with its place and takes the page's colors."""

    title: str
    """What it shows, for those who hear instead of see."""
    parts: Sequence[Markup]
    width: float
    height: float
    css: str = "chart"
    role: str = "img"

    def __html__(self) -> str:
        return self._element(*self.parts)

    def file(self) -> str:
        """The drawing as an SVG file of its own, light and dark by the reader's preference."""
        ground = tag("rect", width="100%", height="100%", class_="ground")
        return self._element(tag("style", Markup(_STYLE.read_text())), ground, *self.parts) + "\n"

    def _element(self, *children: Markup) -> str:
        return tag(
            "svg",
            *children,
            xmlns="http://www.w3.org/2000/svg",
            class_=self.css,
            role=self.role,
            viewBox=f"0 0 {self.width:g} {self.height:g}",
            aria_label=self.title,
        )
