"""The page's CSS: one column, light and dark, and on paper. Colours differ in lightness, not in hue alone."""

HEAT_STEPS = 7

_LIGHT = """
--paper:#fff;--ink:#1b1c20;--soft:#5d5f68;--rule:#d9dae0;--tint:#f5f6f8;--good:#0b6b4d;--bad:#a92a12;
--agree:#8fb3d3;--tie:#f2b632;--fault:#8c2500;--kept:#4f81ad;--gone:#cfdeeb;--limit:#a92a12;
--h0:#f3f7fb;--h1:#d8e6f3;--h2:#b4d0e9;--h3:#86b3da;--h4:#5590c4;--h5:#2b6da8;--h6:#0d4378;--h7:#a92a12;
--k0:#1b1c20;--k3:#1b1c20;--k4:#fff;--k5:#fff;--k7:#fff;"""
_DARK = """
--paper:#15161a;--ink:#e7e8ec;--soft:#a2a5b0;--rule:#373a43;--tint:#1e2026;--good:#5fd3a6;--bad:#ff8f6b;
--agree:#426a90;--tie:#f4c95d;--fault:#ff8f6b;--kept:#6ea3d2;--gone:#2b3f52;--limit:#ff8f6b;
--h0:#1a2029;--h1:#1f3144;--h2:#25455f;--h3:#2d5f88;--h4:#4684b8;--h5:#7db2e0;--h6:#bfdef8;--h7:#ff8f6b;
--k0:#e7e8ec;--k3:#e7e8ec;--k4:#fff;--k5:#0d1a26;--k7:#1b0d06;"""
_TEXT_OF_STEP = (0, 0, 0, 3, 4, 5, 5, 7)

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.5rem 4rem}
p,li,dd{max-width:44rem}
p{margin:.5rem 0 .9rem}
h1{font-size:1.55rem;line-height:1.32;font-weight:500;margin:.4rem 0 1.4rem;max-width:46rem;
 letter-spacing:-.006em;overflow-wrap:anywhere}
h1 strong{font-weight:700}
h2{font-size:1.2rem;line-height:1.3;margin:3rem 0 .6rem;padding-top:.9rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;line-height:1.4;margin:1.6rem 0 .4rem}
.pass{color:var(--good)}.fail{color:var(--bad)}
.soft,figcaption,caption{color:var(--soft);font-size:.875em}
table .soft{font-size:inherit}
.about{color:var(--soft);font-size:.875rem;margin:0}
dl{margin:0 0 1rem;display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.4rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:.6rem 0 1.2rem}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:.3rem}
th,td{padding:.3rem .9rem .3rem 0;text-align:left;vertical-align:baseline;border-bottom:1px solid var(--rule)}
thead th{font-weight:400;color:var(--soft);vertical-align:bottom}
tbody th{font-weight:500;white-space:nowrap}
.n{text-align:right;white-space:nowrap}
.over{color:var(--bad);font-weight:700}
.why{min-width:19rem}
.figure{white-space:nowrap}
code,pre{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
pre{background:var(--tint);padding:.7rem .9rem;border-radius:4px;overflow-x:auto;white-space:pre-wrap;
 overflow-wrap:anywhere}
td code{overflow-wrap:anywhere}
.findings{list-style:none;margin:0;padding:0}
.findings>li{border-left:3px solid var(--rule);padding:.05rem 0 .05rem 1rem;margin:0 0 1.1rem;max-width:none}
.findings>li.first{border-color:var(--bad)}
.findings h3{margin:0 0 .2rem}
.findings p{margin:.1rem 0}
.mark{font-size:.75rem;font-weight:600;color:var(--paper);background:var(--bad);border-radius:3px;
 padding:.1rem .4rem;margin-left:.5rem;vertical-align:.08rem;white-space:nowrap}
figure{margin:.8rem 0 1.4rem}
svg{display:block;max-width:100%;height:auto;overflow:visible}
svg text{font-family:inherit;fill:var(--ink);font-variant-numeric:tabular-nums}
svg .s{fill:var(--soft)}svg .m{text-anchor:middle}svg .e{text-anchor:end}
svg .g{stroke:var(--rule)}svg .lim{stroke:var(--limit);stroke-dasharray:5 3}svg .limtext{fill:var(--limit)}
.agree{fill:var(--agree)}.tie{fill:var(--tie)}.fault{fill:var(--fault)}
.kept{fill:var(--kept)}.gone{fill:var(--gone)}.none{fill:none;stroke:var(--rule)}
.dot{fill:var(--kept)}.dotover{fill:var(--fault)}.stem{stroke:var(--kept);stroke-opacity:.45}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;margin:.2rem 0 .6rem;font-size:.875rem;color:var(--soft);
 align-items:center}
.legend rect{stroke:var(--rule)}.legend svg{display:inline-block;vertical-align:-.1rem;margin-right:.35rem}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1.2rem}
.pictures figure{margin:0}.pictures svg{width:100%}
.pictures figcaption strong{color:var(--ink);font-weight:600}
.halo{fill:none;stroke:#fff;stroke-linecap:round}.cross{fill:none;stroke:#000;stroke-linecap:round}
details{margin:.4rem 0 1rem}summary{cursor:pointer;color:var(--soft);font-size:.875rem}
@media screen and (max-width:48rem){.chart{overflow-x:auto}.chart svg{max-width:none}}
@media screen and (max-width:38rem){
 main{padding:1.5rem 1rem 3rem}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}
}
@media print{
 @page{margin:16mm 14mm}
 body{font-size:10pt}main{max-width:none;padding:0}
 *{-webkit-print-color-adjust:exact;print-color-adjust:exact}
 figure,tr,.findings>li,dl{break-inside:avoid}h2,h3{break-after:avoid}
 .legend{break-after:avoid}.pictures{grid-template-columns:repeat(auto-fill,minmax(9rem,1fr))}
 .wide{overflow:visible}.why{min-width:0}table{font-size:8.5pt}
 details::details-content{content-visibility:visible;block-size:auto}
}
"""


def css() -> str:
    """The whole style sheet."""
    steps = "".join(
        f".h{step}{{fill:var(--h{step})}}svg .k{step}{{fill:var(--k{text})}}"
        for step, text in enumerate(_TEXT_OF_STEP)
    )
    return (
        f":root{{color-scheme:light dark;{_LIGHT}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
        f"{_RULES}{steps}"
    )
