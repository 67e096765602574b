"""The style sheet of the pages: light and dark by the reader's preference, one column on a phone."""

CSS = """
:root {
  color-scheme: light dark;
  --bg: #faf8f3; --panel: #fffefb; --ink: #1f2024; --soft: #62656d; --rule: #e3ded2; --tint: #f2eee4;
  --c0: #2c63c8; --c1: #b8600c; --c2: #8b8f99; --good: #2c7a4b; --bad: #b3382c;
  --text: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  --title: "Iowan Old Style", "Palatino Linotype", Palatino, "URW Palladio L", P052, Charter, Georgia, "Noto Serif",
    "DejaVu Serif", serif;
  --code: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  img { filter: brightness(.88); }
  :root {
    --bg: #16171a; --panel: #1e2024; --ink: #ebe8e1; --soft: #a5a8b0; --rule: #34363d; --tint: #25272c;
    --c0: #86aefc; --c1: #eda758; --c2: #868b96; --good: #74c796; --bad: #f08a7d;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; scroll-padding-top: 1rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--bg); color: var(--ink); font: 1.0625rem/1.6 var(--text);
  font-variant-numeric: lining-nums; text-rendering: optimizeLegibility; }
main { max-width: 1120px; margin: 0 auto; padding: clamp(1.5rem, 5vw, 4rem) clamp(1.1rem, 4vw, 2.5rem) 5rem; }
h1, h2 { font-family: var(--title); font-weight: 600; line-height: 1.15; letter-spacing: -.01em; text-wrap: balance; }
h1 { font-size: clamp(2rem, 6vw, 3.4rem); margin: 0 0 .8rem; overflow-wrap: anywhere; }
h2 { font-size: clamp(1.5rem, 3.4vw, 1.9rem); margin: 4.5rem 0 .4rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
p { margin: .5rem 0 1rem; max-width: 66ch; text-wrap: pretty; }
a { color: var(--c0); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--c0); outline-offset: 3px; border-radius: 4px; }
.lead { font-size: clamp(1.1rem, 2.4vw, 1.3rem); line-height: 1.5; color: var(--soft); }
.eyebrow { font-size: .8rem; letter-spacing: .09em; text-transform: uppercase; color: var(--soft); margin: 0 0 .9rem; }
.soft, figcaption, .legend { color: var(--soft); }
.digest, code, pre, td.code { font-family: var(--code); font-size: .86em; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; margin: 1.6rem 0 0; font-size: .95rem; }
nav a { color: var(--soft); text-decoration: none; border-bottom: 1px solid var(--rule); }
nav a:hover { color: var(--ink); border-color: currentColor; }

figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; background: #fff;
  border: 1px solid var(--rule); border-radius: 6px; }
figcaption { font-size: .88rem; line-height: 1.45; margin-top: .55rem; }
.hero { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: clamp(1.5rem, 5vw, 4rem);
  align-items: center; margin-bottom: 1rem; }
.hero img { width: 100%; border-radius: 10px; }
.versions { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(44%, 290px), 1fr));
  gap: 2rem clamp(1rem, 3vw, 1.8rem); margin-top: 1.5rem; padding: 0; list-style: none; }
.versions img { width: 100%; }
.versions h3 { font-family: var(--title); font-size: 1.25rem; display: flex; flex-wrap: wrap; align-items: baseline;
  gap: .2rem .6rem; margin: .8rem 0 .1rem; }
.versions span { white-space: nowrap; }
.versions p { margin: 0; font-size: .9rem; line-height: 1.5; }
.badge { font: 600 .7rem/1.7 var(--text); letter-spacing: .05em; text-transform: uppercase; padding: 0 .55em;
  border-radius: 1em; border: 1px solid currentColor; color: var(--soft); white-space: nowrap; }
.badge.champion, .badge.promoted, .badge.passed { color: var(--good); }
.badge.refused, .badge.failed { color: var(--bad); }
.badge.challenger { color: var(--c1); }

.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 310px), 1fr)); gap: 1.3rem;
  margin-top: 1.2rem; }
.panel { background: var(--panel); border: 1px solid var(--rule); border-radius: 12px; padding: 1.1rem 1.2rem;
  min-width: 0; display: flex; flex-direction: column; }
.panel > .chart { margin-top: auto; }
.panel p { font-size: .92rem; margin: .4rem 0 .7rem; }
.clusters { margin-top: 2.2rem; } .clusters h3 { font-size: 1.08rem; }
svg { display: block; max-width: 100%; height: auto; }
svg.chart { width: 100%; max-width: 430px; }
svg text { fill: var(--soft); font: 13px var(--text); font-variant-numeric: tabular-nums; }
.axis { stroke: var(--rule); stroke-width: 1; }
.point path, .point circle { stroke-width: 2; stroke-linecap: round; }
.point.line0 circle { fill: var(--c0); } .point.line1 circle { fill: var(--c1); }
.point .ring { fill: none !important; stroke: var(--good); }
.span path { stroke: currentColor; stroke-width: 4; stroke-linecap: round; } .span circle { fill: currentColor; }
.good { color: var(--good); } .bad { color: var(--bad); }
.line0, .line1, .line2 { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line0 { stroke: var(--c0); } .line1 { stroke: var(--c1); } .line2 { stroke: var(--c2); stroke-dasharray: 5 5; }
.bar { fill: var(--c0); } .bar.new { fill: var(--c1); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .5rem 0 0; font-size: .85rem; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .4em; }
.k0 { background: var(--c0); } .k1 { background: var(--c1); } .k2 { background: var(--c2); }
.graph { width: min(100%, 460px); margin: 0 auto; }
.graph .edge { fill: none; stroke: var(--c2); stroke-width: 1.5; }
.graph rect { fill: var(--panel); stroke: var(--rule); stroke-width: 1.5; }
.graph a:hover rect, .graph a:focus rect { stroke: var(--c0); }
.graph .faded rect { stroke-dasharray: 4 4; }
.graph .name { fill: var(--ink); font-weight: 600; font-size: 15px; }
.graph .digest { font: 12px var(--code); }
.made { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 2rem 3rem; align-items: start;
  margin-top: 1.5rem; }
.made > :first-child { position: sticky; top: 1.5rem; }

.scroll { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums lining-nums; }
caption { text-align: left; color: var(--soft); font-size: .88rem; padding-bottom: .4rem; }
th { text-align: left; font-weight: 600; font-size: .85rem; color: var(--soft); }
th[scope=row] { color: var(--ink); font-size: inherit; white-space: nowrap; }
th, td { padding: .5rem 1.2rem .5rem 0; border-bottom: 1px solid var(--rule); vertical-align: baseline; }
td.number, th.number { text-align: right; white-space: nowrap; }
table.facts th[scope=row] { width: 9.5rem; font-weight: 500; color: var(--soft); }
table.facts td { overflow-wrap: anywhere; }
details { border-top: 1px solid var(--rule); }
details:last-of-type { border-bottom: 1px solid var(--rule); }
summary { cursor: pointer; padding: .8rem 0; display: flex; flex-wrap: wrap; gap: .1rem .8rem; align-items: baseline; }
summary::before { content: "›"; color: var(--soft); width: .6em; }
details[open] > summary::before { content: "⌄"; }
summary::-webkit-details-marker { display: none; }
summary b { font-weight: 600; }
summary .soft { font-size: .88rem; }
details > div { padding: 0 0 1.2rem 1.4rem; }
details > div { scroll-margin-top: 4rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--tint); border-radius: 8px; padding: .8rem 1rem;
  margin: .8rem 0 0; line-height: 1.5; }
ol.log { list-style: none; padding: 0; margin: 1.5rem 0 0; border-left: 2px solid var(--rule); }
ol.log > li { position: relative; padding: 0 0 1.8rem 1.6rem; }
ol.log > li::before { content: ""; position: absolute; left: -7px; top: .5em; width: 12px; height: 12px;
  border-radius: 50%; background: var(--c2); border: 2px solid var(--bg); }
ol.log > li.promoted::before { background: var(--good); } ol.log > li.refused::before { background: var(--bad); }
ol.log h3 { display: flex; flex-wrap: wrap; gap: .2rem .6rem; align-items: baseline; font-size: 1.08rem; }
ol.log p { margin: .1rem 0 .5rem; }
.verdict { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: .8rem 2.5rem;
  align-items: center; }
.verdict figure { max-width: 460px; } .verdict svg { overflow: visible; }
ol.log ul { list-style: none; padding: 0; margin: .4rem 0; font-size: .93rem; }
ol.log ul li { padding: .12rem 0 .12rem 1.5rem; position: relative; }
ol.log ul li::before { content: "✓"; position: absolute; left: 0; color: var(--good); }
ol.log ul li.failed::before { content: "✕"; color: var(--bad); }
footer { margin-top: 5rem; padding-top: 1rem; border-top: 1px solid var(--rule); font-size: .88rem;
  color: var(--soft); }

@media (max-width: 760px) {
  body { font-size: 1rem; }
  h2 { margin-top: 3.2rem; }
  .hero, .made { grid-template-columns: minmax(0, 1fr); }
  .made > :first-child { position: static; }
  table.facts th[scope=row] { width: 6.5rem; }
  th, td { padding-right: .8rem; }
}
@media print { details > div { display: block; } .panel, figure, .versions li { break-inside: avoid; } }
"""
