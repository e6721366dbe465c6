"""The style sheet of the HTML report: light and dark, wide and narrow, on paper."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --page: #faf8f4; --card: #ffffff; --ink: #201e1b; --soft: #6a655d; --line: #e5e0d7;
  --wash: #f3efe8; --ours: #fdf3dc; --bar: #dce8e4; --accent: #0f6b5c; --shade: 0 1px 2px #3a2f1c14;
  --warm: #b4540a; --cold: #1d62b8; --warm-wash: #fdeedd; --cold-wash: #e3eefb; --hit: #12714f;
  --c0: #0f766e; --c1: #c2570c; --c2: #2f62c4; --c3: #b0337f; --c4: #7a7a12; --c5: #7446c4;
  --c6: #a8402f; --c7: #34708f; --rest: #8d877c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #141412; --card: #1d1d1a; --ink: #f1eee7; --soft: #a8a297; --line: #34322d;
    --wash: #262521; --ours: #33290f; --bar: #1f3d37; --accent: #5fd0b9; --shade: none;
    --warm: #f5a25d; --cold: #7db5f5; --warm-wash: #3d2914; --cold-wash: #172f4b; --hit: #5fd39f;
    --c0: #3fc5b3; --c1: #f59a4a; --c2: #7aa6ff; --c3: #f07fc0; --c4: #cfcb4e; --c5: #b697ff;
    --c6: #f0836f; --c7: #7cc4e6; --rest: #8f897e;
  }
}
* { box-sizing: border-box; margin: 0; }
html { scroll-behavior: smooth; scroll-padding-top: 4rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  background: var(--page); color: var(--ink);
    font: 16px/1.55 ui-sans-serif, system-ui, -apple-system,
    "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: break-word; font-variant-numeric: tabular-nums;
}
main, header, nav ul, footer { max-width: 1120px; margin: 0 auto; padding: 0 1.25rem; }
a { color: var(--accent); }
a:focus-visible, input:focus-visible, .scroll:focus-visible {
  outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 4px;
}
h1, h2, h3 { line-height: 1.15; letter-spacing: -.018em; text-wrap: balance; }
h1 { font-size: clamp(1.7rem, 1.2rem + 3vw, 3.4rem); hyphens: auto;
  font-weight: 750; letter-spacing: -.03em; }
h2 { font-size: 1.65rem; font-weight: 700; }
h3 { font-size: 1.05rem; font-weight: 650; }
.quiet, figcaption, small { color: var(--soft); font-size: .9rem; }
header { padding-top: 3.5rem; padding-bottom: 2rem; }
header > p { color: var(--soft); font-size: 1.15rem; max-width: 62ch; margin-top: .9rem; }
header > .eyebrow { color: var(--accent); font-size: .82rem; font-weight: 650; margin: 0 0 .8rem;
  letter-spacing: .09em; text-transform: uppercase; }
nav { position: sticky; top: 0; z-index: 2; border-block: 1px solid var(--line);
  background: color-mix(in srgb, var(--page) 90%, transparent); backdrop-filter: blur(8px); }
nav ul { display: flex; gap: 1.5rem; list-style: none; overflow-x: auto; }
nav a { display: block; padding: .7rem 0; color: var(--soft); font-size: .92rem; font-weight: 550;
  text-decoration: none; white-space: nowrap; }
nav a:hover { color: var(--ink); }
section { padding-top: 3.2rem; }
section > .lead { color: var(--soft); max-width: 68ch; margin-top: .5rem; }
footer { border-top: 1px solid var(--line); color: var(--soft); font-size: .88rem;
  margin-top: 4rem; padding-block: 1.5rem 3rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  box-shadow: var(--shade); margin-top: 1.25rem; padding: 1.25rem; min-width: 0; }
.card > h3 { margin-bottom: .8rem; }

.tiles { display: grid; gap: 1px; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr));
  margin-top: 2.2rem; background: var(--line); border: 1px solid var(--line); border-radius: 14px;
  overflow: hidden; box-shadow: var(--shade); }
.tiles > div { background: var(--card); padding: 1.1rem 1.25rem; }
.tiles dt { color: var(--soft); font-size: .86rem; }
.tiles dd b { display: block; font-size: 2.1rem; font-weight: 700; letter-spacing: -.03em;
  line-height: 1.25; }
.facts { display: grid; gap: 1rem 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
.facts dt { color: var(--soft); font-size: .86rem; }
.facts dd b { font-size: 1.15rem; font-weight: 650; }
.facts small, .tiles small { display: block; font-size: .84rem; line-height: 1.4; }

.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th, td { padding: .55rem .8rem; text-align: right; white-space: nowrap; }
thead th { color: var(--soft); font-size: .82rem; font-weight: 600; }
thead tr:last-child th { border-bottom: 1px solid var(--line); }
thead .slice::before { content: ""; display: inline-block; width: .6rem; height: .6rem;
  border-radius: 50%;
  background: var(--k); margin-right: .45rem; }
thead .slice { font-size: .9rem; text-align: left; color: var(--ink); padding-bottom: 0; }
th[scope=row], thead tr:first-child th:first-child { text-align: left; font-weight: 550;
  padding-left: 0; }
tbody th[scope=row] { padding-left: .5rem; position: sticky; left: 0; background: var(--card); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody tr.ours > * { background: var(--ours); }
tbody tr.ours > th { font-weight: 700; box-shadow: inset 3px 0 var(--accent); }
.first { border-left: 1px solid var(--line); }
.meter { display: block; height: 3px; border-radius: 2px; margin-top: .2rem;
  background: linear-gradient(90deg, var(--rest) var(--part), var(--wash) 0); opacity: .75; }
.best .meter { background: linear-gradient(90deg, var(--accent) var(--part), var(--wash) 0);
  opacity: 1; }
.best strong { color: var(--accent); font-weight: 750; }
.card > .quiet { margin-top: .8rem; }

.charts { display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 12px ui-sans-serif, system-ui, "Noto Sans", "DejaVu Sans", sans-serif;
  fill: var(--soft); }
svg .grid { stroke: var(--line); }
svg .line { fill: none; stroke: var(--k); stroke-width: 2.2; stroke-linejoin: round;
  stroke-linecap: round; }
svg .name { fill: var(--k); font-weight: 650; }
svg circle { fill: var(--k); }
.warm circle { opacity: .5; }
.cold path { fill: var(--k); stroke: var(--ink); stroke-width: 1.6; }
.map circle:hover, .map path:hover { opacity: 1; stroke: var(--ink); stroke-width: 3; }
svg .place { fill: var(--ink); font-size: 17px; font-weight: 700; pointer-events: none;
  paint-order: stroke; stroke: var(--card); stroke-width: 5px; stroke-linejoin: round; }
.c0 { --k: var(--c0); } .c1 { --k: var(--c1); } .c2 { --k: var(--c2); } .c3 { --k: var(--c3); }
.c4 { --k: var(--c4); } .c5 { --k: var(--c5); } .c6 { --k: var(--c6); } .c7 { --k: var(--c7); }
.rest { --k: var(--rest); }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .88rem; list-style: none;
  padding: 0; }
.key i { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem;
  border-radius: 50%;
  background: var(--k); }
.key .diamond { border-radius: 1px; border: 1.5px solid var(--ink);
  transform: rotate(45deg) scale(.85); }
.switch { border: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .4rem 1.1rem;
  font-size: .92rem;
  margin-bottom: .6rem; }
.switch legend { float: left; color: var(--soft); margin-right: .2rem; }
.switch label { cursor: pointer; }
.switch input { accent-color: var(--accent); margin-right: .35rem; }
.map:has(.only-warm:checked) svg .cold, .map:has(.only-cold:checked) svg .warm { display: none; }

.strip { display: flex; gap: .55rem; overflow-x: auto; list-style: none; padding: .2rem 0 .4rem; }
.strip li { flex: 0 0 4.2rem; }
.thumb { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 9px;
  background: var(--wash); border: 1px solid var(--line); }
.blank { display: grid; place-items: center; color: var(--soft); font-size: 1.5rem;
  font-weight: 650; }
.example > h4 { font-size: .84rem; font-weight: 600; color: var(--soft); margin: 1rem 0 .4rem; }
.picks { display: grid; gap: 1.1rem; grid-template-columns: repeat(auto-fill, minmax(9.8rem, 1fr));
  list-style: none; padding: 0; }
.pick { position: relative; display: flex; flex-direction: column; gap: .4rem; min-width: 0; }
.pick .name { font-size: .92rem; font-weight: 600; line-height: 1.3; }
.pick .detail { color: var(--soft); font-size: .84rem; }
.row { display: flex; flex-wrap: wrap; align-items: center; gap: .35rem; font-size: .82rem; }
.row .score { margin-left: auto; color: var(--soft); }
.badge { white-space: nowrap; border-radius: 99px; padding: .08rem .55rem;
  font-size: .78rem; font-weight: 650; }
.badge.warm { background: var(--warm-wash); color: var(--warm); }
.badge.cold { background: var(--cold-wash); color: var(--cold); }
.badge.hit { position: absolute; left: .5rem; top: .5rem; color: var(--card);
  background: var(--hit); }
.why { border-top: 1px solid var(--line); margin-top: auto; padding-top: .5rem; font-size: .8rem;
  color: var(--soft); }
.why .strip { gap: .35rem; padding: .3rem 0; overflow: hidden; }
.why .strip li { flex: 0 0 2.5rem; }
.why .thumb { border-radius: 6px; }
.why .blank { font-size: 1rem; }
.shares { display: flex; height: 7px; gap: 2px; border-radius: 4px; overflow: hidden;
  margin: .35rem 0; }
.shares i { background: var(--k); flex: var(--part) 0 0; }
.why .key { display: block; font-size: .78rem; }
.why .key li { display: flex; align-items: center; }
.why .key b { margin-left: auto; font-weight: 550; }
.why .key i { width: .55rem; height: .55rem; margin-right: .3rem; }

.steps th, .steps td { border: 0 !important; padding-block: .35rem; }
.steps td:last-child { width: 55%; padding-right: 0; }
.steps .meter { height: .7rem; margin: 0; border-radius: 3px; opacity: 1;
  background: linear-gradient(90deg, var(--accent) var(--part), transparent 0); }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: 1rem; }
@media (max-width: 36rem) {
  header { padding-top: 2rem; }
  .card { padding: 1rem; }
  .tiles, .picks, .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .tiles > div { padding: .9rem 1rem; }
  .tiles dd b { font-size: 1.45rem; }
  .charts svg text { font-size: 16px; }
  tbody th[scope=row] { white-space: normal; min-width: 6.5rem; }
  .row .score { margin-left: 0; }
  svg .place { font-size: 30px; }
}
@media print {
  nav, .switch, .skip { display: none; }
  .card, .pick { break-inside: avoid; }
}
"""
"""Plain CSS without any address: the page asks nothing of a network."""
