"""The report's page in a real browser: desktop and phone, light and dark."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from benchmark_results import a_source, a_suite

from qnad_art.benchmark.report import write_source
from qnad_art.device.catalogue import load_device

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PROBE = Path(__file__).with_name("browser_probe.js")
LONG = "adversarial training + quantum noise + a rather long name & <i>"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium"
)


def visit(page, folder, *, width, dark=False):
    """Load a page in a frame of so many pixels; what the probe in it saw, and its requests."""
    frame, log = folder / "frame.html", folder / "net.json"
    frame.write_text(
        '<!doctype html><meta name="color-scheme" content="light dark"><pre id="seen"></pre>'
        "<script>onmessage = ({ data }) => { seen.textContent = data }</script>"
        f'<iframe src="{page.name}" style="border:0;width:{width}px;height:800px"></iframe>'
    )
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",  # which containers do not allow
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--window-size=1400,1000",
        "--virtual-time-budget=20000",
        "--dump-dom",
        frame.as_uri(),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', ran.stdout, re.S)
    assert found is not None, ran.stderr[-2000:]
    assert found.group(1), ran.stderr[-2000:]
    return {**json.loads(html.unescape(found.group(1))), "requests": requests(log)}


def requests(log):
    """Addresses that the page asked the network for (Chromium's own have no origin)."""
    events = json.loads(log.read_text())["events"]
    asked = (event.get("params", {}) for event in events)
    return [
        params["url"]
        for params in asked
        if params.get("initiator", "not an origin") != "not an origin"
        and not params["url"].startswith(("file:", "data:"))
    ]


def probed(page, folder):
    """A copy of a page with the probe in it."""
    copy = folder / "page.html"
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("<head>", f"<head><script>{PROBE.read_text()}</script>", 1))
    return copy


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    shares = {"none": (0.97, 0.0), "crosstalk 0.1": (0.95, 0.3), "crosstalk 0.3": (0.93, 0.5)}
    shares |= {"masked": (0.90, 0.9), LONG: (0.6, 0.1)}
    results = a_suite(shares, attacks=("pgd",), device_hash=load_device("ibm_nairobi").hash)
    folder = tmp_path_factory.mktemp("browser")
    report = write_source(a_source(results, title="ladder <b>"), folder, ["html"])
    return probed(report / "report.html", folder)


@pytest.fixture(scope="module", params=["desktop", "phone", "dark phone"])
def seen(request, page, tmp_path_factory):
    folder = page.parent
    width = 1200 if request.param == "desktop" else 360
    found = visit(page, folder, width=width, dark="dark" in request.param)
    assert (found["width"], found["dark"]) == (width, "dark" in request.param)
    return found


def test_page_loads_without_errors_or_requests(seen):
    assert seen["errors"] == []
    assert seen["blocked"] == []
    assert seen["requests"] == []
    assert [name for name in seen["resources"] if not name.startswith("data:")] == []
    assert seen["title"].startswith("ladder <b>")


def test_probe_sees_requests_errors_and_overflow(page):
    folder = page.parent / "broken"
    folder.mkdir()
    broken = folder / "page.html"
    worse = (
        '<img src="http://example.test/x.png"><div style="width:900px">wide</div>'
        '<script>console.error("wrong")</script></main>'
    )
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    broken.write_text(text.replace("</main>", worse, 1))
    seen = visit(broken, folder, width=360)
    assert "wrong" in seen["errors"]
    assert seen["requests"] == ["http://example.test/x.png"]
    assert seen["content"] >= 900
    assert "DIV " in seen["wide"]


def test_nothing_overflows_sideways(seen):
    assert seen["content"] <= seen["width"], seen["wide"]
    assert seen["wide"] == []


def test_every_plot_is_drawn_whole(seen):
    assert len(seen["plots"]) > 15
    for plot in seen["plots"]:
        assert plot["marks"] > 0
        assert plot["labels"] > 2
        assert plot["clipped"] == []
    assert seen["images"] == 0  # broken


def test_legend_hides_and_shows_a_series(seen):
    before, hidden, after = seen["toggled"]
    assert hidden < before == after


def channels(colour):
    return [float(number) / 255 for number in re.findall(r"[\d.]+", colour)[:3]]


def contrast(first, second):
    """WCAG's contrast ratio of two colours as CSS computes them."""
    light = []
    for colour in (first, second):
        linear = (
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels(colour)
        )
        light.append(sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_text_can_be_read_in_light_and_dark(seen):
    assert len(seen["inks"]) > 4
    for pair, example in seen["inks"].items():
        ink, ground = pair.split(" on ")
        assert contrast(ink, ground) >= 4.5, (pair, example)
    assert all(contrast(plot["ink"], seen["surface"]) >= 4.5 for plot in seen["plots"])
    black = contrast(seen["surface"], "rgb(0, 0, 0)")
    assert black < 2 if seen["dark"] else black > 18
