// The style sheet of the report: light, dark, narrow screens and paper.
#pragma once

namespace strata {

inline constexpr const char* kReportStyle = R"css(
:root { color-scheme: light dark;
  --page: #ffffff; --ink: #1b1f24; --soft: #5b6470; --rule: #dfe3e8; --track: #eef1f4;
  --good: #1a7f4b; --bad: #b93a32; --calm: #5b6470;
  --s0: #2f6db5; --s1: #d2691e; --s2: #2e8b57; --s3: #8a4fb0; --s4: #b8860b; --s5: #c23b6b;
  --s6: #168a94; --s7: #6b7280; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171b; --ink: #e6e9ed; --soft: #9aa4b1; --rule: #2c333b; --track: #22282f;
  --good: #54c78a; --bad: #f08379; --calm: #9aa4b1;
  --s0: #6aa6ea; --s1: #f0985a; --s2: #62c08d; --s3: #c08fe0; --s4: #dcb347; --s5: #ee7fa6;
  --s6: #55c3cc; --s7: #a3acb8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 66rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
  Arial, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .75rem; text-wrap: balance; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
p { margin: 0 0 .5rem; max-width: 46rem; }
.claim { font-size: 1.1rem; }
.note { color: var(--soft); font-size: .875rem; margin-top: .75rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: .8125rem; color: var(--soft);
  vertical-align: bottom; }
th, td { padding: .5rem 1rem .5rem 0; border-bottom: 1px solid var(--rule); }
td { vertical-align: middle; white-space: nowrap; }
th.n, td.n { text-align: right; }
th:last-child, td:last-child { padding-right: 0; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
.small td, .small th { padding-top: .25rem; padding-bottom: .25rem; font-size: .875rem; }
.wrap { white-space: normal; }
.cells { display: flex; flex-wrap: wrap; gap: 2px; align-items: center; max-width: 15rem; margin-bottom: .25rem; }
.cell { width: 1.5rem; height: 1.5rem; border-radius: 4px; color: #fff; display: flex;
  align-items: center; justify-content: center; font: 600 .8125rem/1 ui-monospace, "SF Mono", Menlo,
  Consolas, "Liberation Mono", monospace; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.dense .cell { width: 1rem; height: 1rem; border-radius: 3px; font-size: .625rem; }
.shared { outline: 2px dotted var(--ink); outline-offset: -2px; }
.branches { display: flex; flex-direction: column; gap: 1px; }
.k0 { background: #2f6db5; } .k1 { background: #c65d14; } .k2 { background: #6b7480; }
.k3 { background: #26804f; } .k4 { background: #8a4fb0; } .k5 { background: #b03060; }
.k6 { background: #14777f; } .k7 { background: #8a6a08; }
.name { font-weight: 600; }
.sub { color: var(--soft); font-size: .8125rem; }
.verdict { font-weight: 600; }
.win { color: var(--good); } .loss { color: var(--bad); }
.tie, .undecided, .baseline { color: var(--calm); }
.kept { color: var(--good); } .missed { color: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: .35rem 1.25rem; margin: .75rem 0 0; padding: 0;
  list-style: none; font-size: .875rem; }
.legend li { display: flex; align-items: center; gap: .45rem; }
.swatch { width: 1.25rem; height: 3px; border-radius: 2px; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.swatch.dashed { background-image: linear-gradient(90deg, transparent 60%, var(--page) 60%);
  background-size: 8px 3px; }
svg { display: block; } .chart { width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial,
  sans-serif; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); stroke-width: 1; } .axis { stroke: var(--soft); stroke-width: 1; }
.reference { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 4; }
.line { fill: none; stroke: currentColor; stroke-width: 2.25; stroke-linejoin: round; }
.band { fill: currentColor; opacity: .15; } .dot { fill: currentColor; }
.track { stroke: var(--track); stroke-width: 8; stroke-linecap: round; }
.whisker { stroke: var(--ink); stroke-width: 1.5; } .mean { fill: var(--ink); }
.scale { display: flex; justify-content: space-between; width: 160px; padding: 0 4px;
  box-sizing: border-box; font-weight: 400; }
.seed { fill: none; stroke: var(--soft); }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); }
.s3 { color: var(--s3); } .s4 { color: var(--s4); } .s5 { color: var(--s5); }
.s6 { color: var(--s6); } .s7 { color: var(--s7); }
.swatch { background-color: currentColor; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: 0;
  font-size: .875rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: 1.25rem 1rem 3rem; } dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .5rem; } }
@media print { :root { --page: #fff; --ink: #000; --soft: #444; --rule: #bbb; --track: #eee;
  --good: #1a7f4b; --bad: #b93a32; --calm: #444; --s0: #2f6db5; --s1: #d2691e; --s2: #2e8b57;
  --s3: #8a4fb0; --s4: #b8860b; --s5: #c23b6b; --s6: #168a94; --s7: #6b7280; }
  body { padding: 0; max-width: none; font-size: 10pt; } .wide { overflow: visible; }
  tr, svg, figure { break-inside: avoid; } h2 { break-after: avoid; } }
)css";

}  // namespace strata
