"""The style sheet of a page, and its script: it plays the frames of clips, and follows links inside frames."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --faint: #57606a; --rule: #d0d7de;
  --shade: #f6f8fa; --link: #0757b8;
  --line-0: #0757b8; --line-1: #6b737c; --line-2: #b04500; --line-3: #1a7f37; --line-4: #8250df;
  --line-5: #b0176a; --line-6: #0b7d84; --line-7: #7d5a00 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6edf3; --faint: #9aa4af; --rule: #30363d; --shade: #161b22; --link: #79b8ff;
    --line-0: #58a6ff; --line-1: #9aa4af; --line-2: #f0883e; --line-3: #56d364; --line-4: #bc8cff;
    --line-5: #ff7eb6; --line-6: #39c5cf; --line-7: #d9b44a } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif }
header, main, footer { max-width: 72rem; margin: 0 auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin: 1.5rem 0 .25rem }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--rule) }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem }
p, dd { max-width: 70ch } h1, h2, h3, p, li, dt, figcaption { overflow-wrap: anywhere }
a { color: var(--link) }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
.skip { position: absolute; left: -99rem } .skip:focus { position: static }
nav ul, .legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem;
  margin: .5rem 0; padding: 0; list-style: none }
figure { margin: 1rem 0 } figcaption, caption { color: var(--faint); text-align: left }
figcaption, caption, .legend, details, table { font-size: .875rem }
img { max-width: 100%; height: auto } pre { overflow-x: auto; background: var(--shade); padding: .75rem }
summary { cursor: pointer; padding: .25rem 0; color: var(--link) }
dt { font-family: ui-monospace, monospace; margin-top: .5rem } dd { margin: 0 0 0 1rem }
.scroll { overflow-x: auto } .scroll img { max-width: max(100%, 60rem) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { padding: .25rem 0; max-width: calc(100vw - 2rem) }
th, td { padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--rule); text-align: right }
th { font-weight: normal } td { white-space: nowrap }
.text, tbody th { text-align: left; white-space: normal; max-width: 28rem; overflow-wrap: break-word }
th:first-child { text-align: left; min-width: 6rem } thead th { vertical-align: bottom; color: var(--faint) }
.facts th, .facts td { text-align: left; vertical-align: top }
.facts td { overflow-wrap: anywhere; max-width: none; white-space: normal }
.facts caption { padding-top: 1rem }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 0 1.5rem }
.chart svg { width: 100% } .chart > svg { max-width: 30rem } .legend svg { width: 28px; vertical-align: middle;
  margin-right: .4rem }
svg text { fill: var(--faint); font-size: 11px } .rule { stroke: var(--rule) }
.mark { stroke: var(--ink); stroke-dasharray: 2 2 }
.line { fill: none; stroke-width: 1.75 } .line-0 { stroke: var(--line-0); stroke-width: 2.5 }
.line-1 { stroke: var(--line-1); stroke-dasharray: 2 3 } .line-2 { stroke: var(--line-2); stroke-dasharray: 7 3 }
.line-3 { stroke: var(--line-3); stroke-dasharray: 8 3 2 3 }
.line-4 { stroke: var(--line-4); stroke-dasharray: 4 2 }
.line-5 { stroke: var(--line-5); stroke-dasharray: 1 2 } .line-6 { stroke: var(--line-6); stroke-dasharray: 10 2 }
.line-7 { stroke: var(--line-7); stroke-dasharray: 7 2 1 2 }
.again { stroke-dasharray: 0 6; stroke-linecap: round; stroke-width: 3.5 }
.dot-0 { fill: var(--line-0) } .dot-1 { fill: var(--line-1) } .dot-2 { fill: var(--line-2) }
.dot-3 { fill: var(--line-3) } .dot-4 { fill: var(--line-4) } .dot-5 { fill: var(--line-5) }
.dot-6 { fill: var(--line-6) } .dot-7 { fill: var(--line-7) }
.bar { width: 10rem; height: .8rem; display: block; background: var(--rule) } .bar .own { fill: var(--line-0) }
.bar .rival { fill: var(--ink) } .ground { fill: var(--shade) }
.cell { fill: var(--line-0) } .cell-off { fill: var(--line-2) }
.panels { display: grid; grid-template-columns: repeat(4, 1fr); gap: .5rem; background: #0f1216; padding: .5rem }
.threes { grid-template-columns: repeat(3, 1fr) }
.panels figure { margin: 0 } .panels svg { width: 100%; display: block; image-rendering: pixelated }
.panels figcaption { color: #e9edf2; font-size: .8125rem }
.clip label { display: flex; flex: 1; flex-wrap: wrap; align-items: center; gap: .25rem 1rem }
.controls { display: flex; align-items: center; gap: .25rem 1rem; margin: .5rem 0 }
.play { font: inherit; min-width: 5rem; min-height: 2rem; border: 1px solid var(--rule); border-radius: .25rem;
  background: var(--shade); color: var(--ink); cursor: pointer }
[hidden] { display: none } .index { float: right; margin-top: 1.75rem }
.clip input { flex: 1 1 14rem; min-height: 2rem; accent-color: var(--link) } .clip .now { flex: 0 1 22rem }
.legend .swatch { width: 12px; height: 12px } .sprites { position: absolute; width: 0; height: 0 }
footer { color: var(--faint); font-size: .875rem; padding: 2rem 1rem }
@media (max-width: 40rem) { .panels, .threes { grid-template-columns: repeat(2, 1fr) } .bar { width: 6rem }
  td.text { min-width: 9rem } .facts td.text { min-width: 5rem } }
@media print { .scroll { overflow: visible } .scroll > img, .scroll > svg { max-width: 100%; height: auto }
  th, td { padding-right: .5rem } table { font-size: .6875rem } pre { white-space: pre-wrap }
  figure, .clip { break-inside: avoid } h2, h3 { break-after: avoid } }
"""

SCRIPT = """
for (const slider of document.querySelectorAll(".clip input")) {
  const clip = slider.closest(".clip");
  const frames = JSON.parse(slider.dataset.frames);
  const show = () => {
    const n = Number(slider.value);
    clip.querySelectorAll(".panels svg").forEach(panel => {
      const { y, width, height } = panel.viewBox.baseVal;
      panel.setAttribute("viewBox", `${n * panel.dataset.across} ${y} ${width} ${height}`);
      panel.setAttribute("aria-label", `${panel.dataset.name}, ${frames[n]}`);
    });
    slider.setAttribute("aria-valuetext", frames[n]);
    clip.querySelector(".now").textContent = frames[n];
  };
  const play = clip.querySelector(".play");
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Pause";
    timer = setInterval(() => {
      slider.value = (Number(slider.value) + 1) % frames.length;
      show();
    }, 200);
  });
  slider.addEventListener("input", () => { stop(); show(); });
  play.hidden = false;
  show();
}
if (window !== top) {  // a frame without a URL of its own resolves links to sections against the URL around it
  document.addEventListener("click", event => {
    const link = event.target.closest("a[href^='#']");
    if (!link) return;
    event.preventDefault();
    const section = document.getElementById(link.getAttribute("href").slice(1));
    section.tabIndex = -1;  // a heading takes no focus by itself
    section.focus({ preventScroll: true });
    section.scrollIntoView();
  });
}
const index = document.querySelector(".index");
if (index && location.pathname.endsWith(".html")) index.hidden = false;  // elsewhere a page stands alone
"""
