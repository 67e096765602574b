"""The house in numbers: `python docs/rooms.py` prints modules, lines, and arrows between rooms of the code here."""

from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]


def room(module: str) -> str:
    """The folder below flows or components that a module is in; its package for a module directly in it."""
    parts = module.split(".")
    is_folder = len(parts) > 1 and ROOT.joinpath(*parts[:2]).is_dir()
    return ".".join(parts[: 2 if is_folder else 1])


def main() -> None:
    sources = sorted([*ROOT.glob("flows/**/*.py"), *ROOT.glob("components/**/*.py")])
    text = {path: path.read_text() for path in sources}
    flat = [p for p in ROOT.glob("flows/*.py") if p.stem not in ("__init__", "__main__")]
    graph = grimp.build_graph("flows", "components", cache_dir=None)
    arrows = {
        (room(module), room(imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if room(module) != room(imported)
    }
    lines = sum(len(t.splitlines()) for t in text.values())
    print(f"modules {len(sources)} · lines {lines} · modules directly in flows/ {len(flat)}")
    print(f"rooms {len({room(m) for m in graph.modules})} · arrows between rooms {len(arrows)}")
    both = sorted((a, b) for a, b in arrows if a < b and (b, a) in arrows)
    print(f"rooms that import each other {len(both)}" + "".join(f"\n  {a} - {b}" for a, b in both))


if __name__ == "__main__":
    main()
