"""The style sheet of report.html: light and dark by the reader's preference, one column on a phone."""

CSS = """
:root {
  color-scheme: light dark;
  --bg: #fbfaf7; --panel: #fff; --ink: #1d1f23; --soft: #5d636e; --rule: #e4e1d8;
  --c0: #2f6fde; --c1: #d9801a; --c2: #8a909c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #15171b; --panel: #1e2127; --ink: #e9e7e2; --soft: #a3a9b4; --rule: #343943;
    --c0: #7aa7ff; --c1: #f0b45a; --c2: #7b828f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--bg); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.7rem, 5vw, 2.6rem); line-height: 1.15; margin: 0 0 .4rem; letter-spacing: -.02em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .5rem; letter-spacing: -.01em; }
p { margin: .4rem 0 1rem; max-width: 68ch; }
.soft, figcaption, .legend, .card p { color: var(--soft); }

figure { margin: 0 0 1rem; }
figure img {
  display: block; max-width: 100%; height: auto; image-rendering: pixelated;
  border: 1px solid var(--rule); border-radius: 8px; background: #fff;
}
figcaption { font-size: .9rem; padding: .5rem .1rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; align-items: start; margin-top: 1.5rem; }
.pair img { width: 100%; }
.strip img { width: 100%; max-width: 820px; }

.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 1rem; }
.card, .panel { background: var(--panel); border: 1px solid var(--rule); border-radius: 10px; padding: 1rem 1.1rem; }
.card h3 { margin: 0; font-size: .85rem; font-weight: 600; color: var(--soft); }
.card p { font-size: .9rem; margin: .5rem 0 0; }
.value {
  font-size: 1.9rem; line-height: 1.3; font-weight: 650; letter-spacing: -.02em; font-variant-numeric: tabular-nums;
}
.real { font-size: .85rem; color: var(--soft); }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; }
.panel h3 { margin: 0 0 .5rem; font-size: 1rem; }
.panel p { font-size: .9rem; margin-bottom: 0; }

svg.chart { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 13px; }
.axis { stroke: var(--rule); stroke-width: 1; }
.s0 { fill: var(--c0); } .s1 { fill: var(--c1); } .s2 { fill: var(--c2); }
.k0 { background: var(--c0); } .k1 { background: var(--c1); } .k2 { background: var(--c2); }
.area { fill-opacity: .45; }
.dots { fill-opacity: .6; }
.curve { fill: none; stroke: var(--c0); stroke-width: 2; }
.gauge { display: block; width: 100%; height: 6px; margin-top: .6rem; border-radius: 3px; }
.track { fill: var(--rule); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .4rem 0 0; font-size: .85rem; }
.legend i { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .4em; }

details { border-top: 1px solid var(--rule); padding: .8rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre, td { overflow-wrap: anywhere; }
pre { white-space: pre-wrap; font-size: .82rem; }
pre, .hash { font-family: ui-monospace, Menlo, Consolas, monospace; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin-top: .5rem; }
td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.hash { font-size: .8rem; }

@media (max-width: 720px) {
  .pair, .two { grid-template-columns: minmax(0, 1fr); }
  main { padding-top: 1.5rem; }
}
@media print { .card, .panel, figure { break-inside: avoid; } }
"""
