"""Reports in a real browser, at the width of a telephone and of a desk, in light and dark."""

import html
import json
import re
import shutil
import subprocess

import pytest

from sbjax.experiments.pinn.report import report as pinn_report
from sbjax.experiments.pinn.suite_report import suite_report as pinn_suite
from sbjax.report import build_report, ranking, ranking_page
from sbjax.report.against import write_against
from sbjax.report.results import load_results
from sbjax.report.suite import suite_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=20000",
)
WIDTHS = (390, 1440)

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine; Debian: apt-get install chromium"),
]

# Looks at a page with all its folds open.
LOOK = """
function look(frame) {
  const view = frame.contentWindow, page = frame.contentDocument, found = {wide: [], small: [], pale: [], texts: 0};
  page.querySelectorAll('details').forEach(fold => { fold.open = true; });
  const bright = c => {
    const l = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * l[0] + .7152 * l[1] + .0722 * l[2]; };
  const rgb = text => {
    const n = text.match(/[\\d.]+/g).map(Number);
    return n.length > 3 && n[3] === 0 ? null : n.slice(0, 3);
  };
  const name = (e, text) => e.tagName + ': ' + (text || e.textContent).trim().slice(0, 60);
  if (page.documentElement.scrollWidth > view.innerWidth) found.wide.push('page ' + page.documentElement.scrollWidth);
  for (const e of page.body.querySelectorAll('*')) {
    if (e.closest('.scroll table') || e.closest('svg svg, svg *')) continue;
    const box = e.getBoundingClientRect();
    if (box.width && (box.right > view.innerWidth + 1 || box.left < -1)) found.wide.push(name(e) + ' ' + box.right);
  }
  const main = page.querySelector('.scroll');  // the first table needs no scrolling
  if (main && main.scrollWidth > main.clientWidth + 1) found.wide.push('main table ' + main.scrollWidth);
  for (const box of page.querySelectorAll('.scroll')) {  // arm and verdict stay in sight
    for (const cell of box.querySelectorAll('table.verdict tr > :last-child, tr > :first-child')) {
      const own = cell.getBoundingClientRect(), outer = box.getBoundingClientRect();
      if (own.right > outer.right + 1 || own.left < outer.left - 1) found.wide.push('hidden ' + name(cell));
    }
  }
  const walk = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent, e = walk.currentNode.parentElement;
    if (!text.trim() || e.closest('style')) continue;
    found.texts += 1;
    const style = view.getComputedStyle(e), svg = e.closest('svg');
    let size = parseFloat(style.fontSize), ink = style.color;
    if (svg) {
      const m = e.getScreenCTM();
      size *= Math.sqrt(Math.abs(m.a * m.d - m.b * m.c));
      if (e.style.fill || (e.parentElement.style && e.parentElement.style.fill)) ink = null;  // on a colour of its own
      else ink = style.fill;
    }
    if (size < 10) found.small.push(name(e, text) + ' ' + size.toFixed(1));
    let behind = e, back = null;
    while (behind && !(back = rgb(view.getComputedStyle(behind).backgroundColor))) behind = behind.parentElement;
    if (ink) {
      const [a, b] = [bright(rgb(ink)), bright(back || [255, 255, 255])].sort((p, q) => q - p);
      if ((a + .05) / (b + .05) < 4.5) found.pale.push(name(e, text) + ' ' + ink + ' on ' + back);
    }
  }
  found.dark = bright(rgb(view.getComputedStyle(page.body).backgroundColor) || [255, 255, 255]) < .1;
  return found;
}
window.onload = () => {
  const all = {};
  for (const frame of document.querySelectorAll('iframe')) all[frame.title] = look(frame);
  document.body.innerHTML = '<pre id="found"></pre>';
  document.getElementById('found').textContent = JSON.stringify(all);
};
"""


def look(pages, folder, *, dark):
    """What a browser sees of pages {name: path}: {'name width': {'wide', 'small', 'pale', 'texts', 'dark'}}."""
    frames = "".join(
        f'<iframe title="{name} {width}" width="{width}" height="900" style="border:0" '
        f'srcdoc="{html.escape(path.read_text())}"></iframe>'
        for name, path in pages.items()
        for width in WIDTHS
    )
    frame = folder / f"frames-{dark}.html"
    frame.write_text(f"<!DOCTYPE html><meta charset=utf-8><script>{LOOK}</script><body>{frames}</body>")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [CHROMIUM, *FLAGS, *scheme, f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"file://{frame}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(html.unescape(re.search(r'<pre id="found">(\{.*?)</pre>', done.stdout, re.DOTALL)[1]))


@pytest.fixture(scope="module")
def pages(tmp_path_factory, planted):
    """A report of every kind of page."""
    folder = tmp_path_factory.mktemp("runs")
    accuracy, other = planted.write_run(folder, "accuracy"), planted.write_run(folder, "other", effect=0.0)
    equation = planted.write_member(folder, "heat", shape=(12, 8), unknowns="uv")
    few = planted.write_run(folder, "few", replicas=2, stop=False)
    found = {"accuracy": build_report(accuracy), "few": build_report(few)}
    found["equation"] = build_report(equation, sections=pinn_report)
    found["against"] = write_against(accuracy, other).path
    found["suite"] = suite_report(folder, ["accuracy", "other", "lost"]).path
    early = load_results(accuracy)
    found["ranking"], _ = ranking_page.save_ranking(accuracy, early, ranking.rank(early, "matched"), by="matched")
    equations = tmp_path_factory.mktemp("equations")
    for name in ("heat", "wave"):
        planted.write_member(equations, name, shape=(12, 8), unknowns="u")
    found["equations"] = pinn_suite(equations, ["heat", "wave"]).path
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_fit_and_can_be_read(pages, tmp_path, dark):
    found = look(pages, tmp_path, dark=dark)
    assert len(found) == len(pages) * len(WIDTHS)
    for name, seen in found.items():
        assert seen["texts"] > 30, name
        assert seen["dark"] == dark, name
        assert {what: seen[what] for what in ("wide", "small", "pale")} == {"wide": [], "small": [], "pale": []}, name


def test_the_look_finds_what_is_wrong(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<!DOCTYPE html><p style='width:2000px'>wide</p><p style='font-size:9px'>small</p>"
        "<p style='color:#999'>pale</p>"
    )
    seen = look({"bad": page}, tmp_path, dark=False)["bad 390"]
    assert all(seen[what] for what in ("wide", "small", "pale"))


def test_a_real_run(tmp_path):
    from sbjax.configs.quickstart import get_config
    from sbjax.runner.run import run

    outcome = run(get_config("smoke"), tmp_path / "run")
    assert outcome.report.stat().st_size < 2_000_000
    for name, seen in look({"run": outcome.report}, tmp_path, dark=False).items():
        assert {what: seen[what] for what in ("wide", "small", "pale")} == {"wide": [], "small": [], "pale": []}, name
