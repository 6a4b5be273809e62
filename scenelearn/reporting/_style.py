"""The stylesheet of the pages: a light and a dark palette, and the rules."""

from __future__ import annotations

from typing import Final

# Ink, muted, correct and wrong have a contrast of at least 4.5 : 1 on paper and on card (WCAG AA),
# and ink has it on the strongest tint. tests/reporting/test_report.py checks this.
LIGHT: Final = {
    "paper": "#fbfbf9",
    "card": "#ffffff",
    "ink": "#171a1f",
    "muted": "#5a616b",
    "rule": "#dfe1e3",
    "correct": "#1d5fb4",
    "wrong": "#b3470d",
    "correct-rgb": "45 116 205",
    "wrong-rgb": "226 111 38",
}
DARK: Final = {
    "paper": "#0f1216",
    "card": "#161a20",
    "ink": "#e8eaed",
    "muted": "#a0a8b3",
    "rule": "#2b313a",
    "correct": "#86b6f5",
    "wrong": "#f5a06b",
    "correct-rgb": "74 137 224",
    "wrong-rgb": "214 104 44",
}
N_TINTS: Final = 10
STRONGEST_TINT: Final = 0.55


def _variables(palette: dict[str, str], scheme: str) -> str:
    return f"color-scheme:{scheme};" + "".join(f"--{key}:{v};" for key, v in palette.items())


def _tints() -> str:
    return "".join(
        f".{kind}{step}{{background:"
        f"rgb(var(--{kind}-rgb) / {STRONGEST_TINT * step / N_TINTS:.3f})}}"
        for kind in ("correct", "wrong")
        for step in range(1, N_TINTS + 1)
    )


_RULES: Final = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
 font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main,footer{max-width:60rem;margin:0 auto;padding:0 clamp(1rem,4vw,2.5rem)}
main{padding-top:clamp(1.75rem,5vw,4rem)}
h1,h2,h3{line-height:1.2;text-wrap:balance;font-weight:650;letter-spacing:-.012em}
h1{font-size:1.35rem;margin:0}
h2{font-size:1.35rem;margin:0 0 .75rem}
h3{font-size:1rem;margin:1.5rem 0 .5rem;letter-spacing:0}
p{margin:0 0 .9rem;max-width:42rem}
section{border-top:1px solid var(--rule);margin-top:clamp(2.25rem,5vw,3.5rem);
 padding-top:clamp(1.25rem,3vw,1.9rem);scroll-margin-top:1rem}
a{color:var(--correct);text-underline-offset:.2em}
:focus-visible{outline:2px solid var(--correct);outline-offset:3px}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;
 font-size:.86em}
pre code{font-size:1em}
pre{margin:0;padding:1rem 1.1rem;line-height:1.6;overflow-wrap:normal}
.muted,figcaption,.eyebrow,footer{color:var(--muted)}
.eyebrow{margin:0 0 .3rem;font-size:.85rem}
.lead{font-size:clamp(1.45rem,4.2vw,2.3rem);line-height:1.25;font-weight:600;
 letter-spacing:-.02em;max-width:none;margin:1.1rem 0 1.4rem;text-wrap:balance}
.lead strong{color:var(--correct);font-weight:700}
.blocks{display:grid;gap:1.6rem 2.5rem;margin:1.9rem 0 0;
 grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr))}
.blocks h2{font-size:1rem;margin:0 0 .35rem}
.blocks ul{margin:0;padding-left:1.15rem}
.blocks li{margin:0 0 .35rem}
.next{border-left:3px solid var(--correct);padding:.1rem 0 .1rem 1rem;grid-column:1/-1}
dl{margin:0;display:grid;gap:1.1rem 1.5rem;
 grid-template-columns:repeat(auto-fit,minmax(min(100%,9.5rem),1fr))}
dt{color:var(--muted);font-size:.85rem;line-height:1.35}
dd{margin:.1rem 0 0;font-weight:600}
dl.facts{margin-top:1.5rem;grid-template-columns:repeat(4,1fr)}
dl.rows{grid-template-columns:minmax(6rem,max-content) 1fr;gap:.35rem 1.5rem;margin-top:1.2rem}
dl.rows dt{line-height:1.55}
dl.rows dd{font-weight:400;margin:0}
nav{margin-top:1.9rem;font-size:.9rem}
nav ul{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.3rem 1.15rem}
figure{margin:1.1rem 0 0}
figcaption{font-size:.88rem;line-height:1.5;margin-top:.6rem;max-width:42rem}
svg{display:block;max-width:100%}
svg text{font-size:13px;fill:var(--muted);font-family:inherit}
svg .strong{fill:var(--ink);font-weight:600}
.pair{display:grid;gap:1rem 2rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr))}
.pair svg{width:100%;height:auto;background:var(--card);border:1px solid var(--rule);
 border-radius:8px}
.grid{stroke:var(--rule);stroke-width:1}
.track{fill:var(--rule)}
.band{fill:var(--correct);fill-opacity:.38}
.dot{fill:var(--correct)}
.tick{stroke:var(--muted);stroke-width:2}
.line{fill:none;stroke-width:2.25;stroke-linejoin:round;stroke-linecap:round}
.a.line,.a.mark{stroke:var(--correct)}
.b.line,.b.mark{stroke:var(--wrong)}
.b.line{stroke-dasharray:5 4.5}
.a.mark{fill:var(--correct)}
.b.mark{fill:var(--card);stroke-width:1.75}
.ideal{stroke:var(--muted);stroke-width:1.25;stroke-dasharray:4 4}
.whisker{stroke:var(--correct);stroke-width:5;stroke-opacity:.38}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--rule);border-radius:8px;
 max-width:100%}
.scroll.tall{max-height:26rem;overflow-y:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;overflow-wrap:normal}
th,td{padding:.5rem .9rem;text-align:left;vertical-align:top;border-top:1px solid var(--rule)}
thead th{border-top:0;color:var(--muted);font-weight:500;font-size:.84rem;vertical-align:bottom}
tbody th,tfoot th{font-weight:600}
tfoot td{font-weight:600}
.n{text-align:right;white-space:nowrap}
th.l,td.l{min-width:9rem;max-width:26rem;overflow-wrap:anywhere}
.bar{display:inline-block;max-width:none;vertical-align:-1px;margin-left:.75rem}
.rare{display:block;color:var(--muted);font-size:.84rem;font-weight:400}
.heat{border-collapse:separate;border-spacing:2px;padding:.4rem}
.heat th,.heat td{border:0;border-radius:4px;padding:.4rem .55rem;text-align:center;
 vertical-align:middle;line-height:1.25}
.heat td{min-width:4.2rem}
.heat td small{display:block;font-size:.76rem}
.n+.l{min-width:15rem}
.heat thead th{vertical-align:bottom}
.heat [scope=colgroup]{text-align:left}
.heat bdi{display:inline-block;width:max-content;max-width:7.5rem;overflow-wrap:anywhere}
.heat tbody bdi{max-width:12rem}
.heat tbody th{position:sticky;left:0;background:var(--card);text-align:left}
.heat .zero{color:var(--muted)}
.heat .sum{color:var(--muted);min-width:3rem}
.many thead th[scope=col]{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;
 max-height:11rem;vertical-align:top}
.many td{min-width:3.4rem;padding:.25rem .3rem;font-size:.82rem}
.many a{margin:-.25rem -.3rem;padding:.25rem .3rem}
.heat a{display:block;margin:-.4rem -.55rem;padding:.4rem .55rem;border-radius:4px;color:inherit;
 text-decoration-color:var(--muted)}
.heat a:hover{outline:2px solid var(--correct);outline-offset:-2px}
.cell{display:none;border-top:0;margin-top:1.2rem;padding:1rem 1.2rem 1.2rem;
 background:var(--card);border:1px solid var(--rule);border-radius:8px}
.cell:target{display:block}
.cell h3{margin-top:0}
.gallery{list-style:none;margin:1.1rem 0 0;padding:0;display:grid;gap:1.6rem 1.4rem;
 grid-template-columns:repeat(auto-fill,minmax(11rem,1fr))}
.gallery figure{margin:0}
.gallery img,.gallery .gone{display:block;width:100%;max-width:160px;height:auto;
 aspect-ratio:1;border-radius:5px}
.gallery .gone{display:grid;place-items:center;text-align:center;padding:.75rem;
 border:1px dashed var(--muted);color:var(--muted);font-size:.85rem;line-height:1.4}
.gallery figcaption{color:var(--ink);font-size:.9rem;line-height:1.4}
.gallery b{color:var(--wrong)}
.gallery code{display:block;color:var(--muted);margin-top:.25rem;font-size:.76rem}
.gallery.wide{grid-template-columns:repeat(auto-fill,minmax(min(100%,16.5rem),1fr))}
.two{display:grid;grid-template-columns:1fr 1fr;gap:.5rem;margin-bottom:.4rem;max-width:330px}
.gallery.small{gap:1rem;grid-template-columns:repeat(auto-fill,minmax(8rem,1fr));margin:0}
.gallery.small img,.gallery.small .gone{max-width:112px}
.findings{list-style:none;margin:0;padding:0}
.finding{border-top:1px solid var(--rule);padding:.9rem 0}
.finding label{display:block;margin-top:.3rem;font-size:.82rem}
.controls{display:flex;flex-wrap:wrap;gap:.35rem 1.2rem;font-size:.9rem;align-items:baseline}
.controls label:first-child,.controls p{flex-basis:100%;margin:.2rem 0}
.controls [type=search],.controls button{font:inherit;color:inherit;background:var(--card);
 border:1px solid var(--muted);border-radius:5px;padding:.25rem .6rem}
[hidden]{display:none}
details{margin-top:1rem}
summary{cursor:pointer;color:var(--correct);font-size:.92rem;width:fit-content}
details[open] summary{margin-bottom:.7rem}
footer p{border-top:1px solid var(--rule);margin:3.5rem 0 2.5rem;padding-top:1.1rem;
 max-width:none;font-size:.85rem}
@media (max-width:50rem){dl.facts{grid-template-columns:1fr 1fr}}
@media (max-width:34rem){th,td{padding:.45rem .65rem}.gallery{gap:1.4rem .9rem;
 grid-template-columns:repeat(2,minmax(0,1fr))}.gallery.wide{grid-template-columns:1fr}dl.rows{grid-template-columns:1fr;gap:0}
 dl.rows dd{margin-bottom:.6rem}.heat tbody bdi{max-width:7.5rem}th.l{min-width:7.5rem}
 .bar{display:block;width:88px;margin:.35rem 0 0 auto}}
@page{margin:14mm}
@media print{.heat a{text-decoration:none}}
@media print{body{font-size:10.5pt;background:none;print-color-adjust:exact;
 -webkit-print-color-adjust:exact}main,footer{max-width:none;padding:0}nav,.controls{display:none}
 .scroll,.scroll.tall{overflow:visible;max-height:none}
 tr,figure,.gallery li,.next,dl div{break-inside:avoid}h2,h3{break-after:avoid}
 .tall table{font-size:8pt}.tall th,.tall td{padding:.1rem .6rem}.tall .rare{display:inline;
 font-size:inherit;margin-left:.6rem}pre{white-space:pre-wrap}}
"""

STYLE: Final = (
    f":root{{{_variables(LIGHT, 'light')}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK, 'dark')}}}}}"
    + _tints()
    + _RULES
)
