"""The report's style sheet: light and dark, wide and narrow, and paper."""

STYLE = """\
:root {
  --ink: #1a1a1a; --muted: #585858; --ground: #ffffff; --raised: #f4f5f7; --line: #d5d8dd;
  --accent: #00568a; --missing: #8a4b00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e9e9e9; --muted: #adb1b8; --ground: #15171a; --raised: #1f2226; --line: #3a3f46;
    --accent: #7cc4f5; --missing: #f0b35a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 72rem; margin: 0 auto; padding: 1.25rem 1rem 4rem; }
h1 { font-size: clamp(1.35rem, 4vw, 2rem); line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .6rem; }
p, li { max-width: 58rem; overflow-wrap: anywhere; }
ul, ol { padding-left: 1.2rem; margin: .4rem 0; }
li { margin: .3rem 0; }
a { color: var(--accent); }
.scope { font-weight: 600; margin: .2rem 0 .5rem; }
.data { color: var(--muted); margin: 0; font-size: .9rem; }
#answer { background: var(--raised); border: 1px solid var(--line); border-radius: .6rem;
  padding: .2rem 1.1rem .9rem; margin-top: 1rem; }
#answer h2 { font-size: 1.05rem; margin: 1rem 0 .3rem; }
#answer p { margin: .3rem 0; }
#answer figure { margin: .8rem 0 0; }
#answer h3 { display: none; }
#answer th { background: none; }
#answer table { min-width: min(100%, 44rem); }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin: 1rem 0 0; }
figure { margin: 0 0 2.4rem; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
.card { background: #ffffff; border: 1px solid var(--line); border-radius: .5rem; padding: .4rem; }
.card img { display: block; width: 100%; min-width: 40rem; height: auto; }
table { border-collapse: collapse; font-size: .875rem; min-width: 100%; }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { background: var(--raised); font-weight: 600; white-space: normal; vertical-align: bottom; }
td { max-width: 26rem; }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th.n { text-align: right; }
.missing { color: var(--missing); font-style: italic; }
.narrow { display: none; list-style: none; padding: 0; }
.narrow i { display: block; height: .7rem; background: var(--accent); border-radius: .2rem; }
.narrow .claimed i { background: none; border: 2px dashed var(--muted); }
.notes { font-size: .875rem; color: var(--muted); }
figcaption { font-size: .8125rem; color: var(--muted); margin-top: .5rem;
  overflow-wrap: anywhere; max-width: 60rem; }
@media screen and (max-width: 40rem) {
  main { padding: 1rem .75rem 3rem; }
  .narrow { display: block; }
  #answer { padding: .1rem .8rem .7rem; }
  table, tbody, tr, td { display: block; min-width: 0 !important; }
  thead { position: absolute; left: -10000px; }
  tr { border: 1px solid var(--line); border-radius: .4rem; margin: 0 0 .6rem;
    padding: .3rem .5rem; }
  td, td.n { border: 0; padding: .1rem 0; text-align: left; white-space: normal; max-width: none; }
  td:empty { display: none; }
  td::before { content: attr(data-label) ": "; color: var(--muted); }
  td:first-child { font-weight: 600; }
  td:first-child::before { content: none; }
}
@page { margin: 14mm; }
@media print {
  :root { --ink: #1a1a1a; --muted: #585858; --ground: #ffffff; --raised: #f4f5f7;
    --line: #d5d8dd; --accent: #00568a; --missing: #8a4b00; }
  body { font-size: 10pt; }
  main { padding: 0; max-width: none; }
  .scroll { overflow: visible; }
  .card { border: 0; padding: 0; }
  /* A page's height at most, caption included: what is taller would be cut. */
  .card img { min-width: 0; width: auto; max-width: 100%; max-height: 235mm; margin: 0 auto; }
  #figure-frontier img { max-height: 145mm; }  /* fits below a table's end */
  .narrow { display: block; }  /* the first page's, since the chart needs the next */
  figure { margin-bottom: 1.2rem; }
  nav { display: none; }
  table { font-size: 7.5pt; min-width: 0; width: 100%; }
  th, td { padding: .15rem .3rem; }
  td.n { white-space: normal; }
  tr, .drawing { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""
