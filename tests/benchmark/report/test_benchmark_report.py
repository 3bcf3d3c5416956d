"""The report: what its tables and figures say, and that the page is sound HTML."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
from benchmark_results import a_source, a_suite, attack, cell, outcomes, result
from matplotlib import colormaps
from PIL import Image
from typer.testing import CliRunner

from qnad_art.benchmark.report import write_source
from qnad_art.benchmark.report.chart import COLOURS, ink, percent, table_of
from qnad_art.benchmark.report.figures import charts_of
from qnad_art.benchmark.report.matplotlib_figures import matplotlib_figure, picture
from qnad_art.benchmark.report.plotly_figures import plotly_figures
from qnad_art.benchmark.report.source import families_of, read_source
from qnad_art.benchmark.report.tables import accuracies, headline, improvements
from qnad_art.benchmark.run.folder import Failure, Run, write_arrays
from qnad_art.benchmark.statistics.intervals import accuracy_interval
from qnad_art.benchmark.suites.suite import Suite
from qnad_art.circuits.drawing import circuit_drawings
from qnad_art.cli import app
from qnad_art.device.catalogue import load_device
from qnad_art.errors import UnknownNameError

EVIL = "<script>alert('x')</script> & <b>\"$bold$\""


class Elements(HTMLParser):
    """Every start tag with its attributes, in order, and the text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self._within = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._within.append(tag)

    def handle_endtag(self, tag):
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._within):
            self.text.append(data)

    def all(self, *tags):
        return [attributes for tag, attributes in self.found if tag in tags]


def kept_examples():
    rng = np.random.default_rng(0)
    x = rng.random((6, 1, 8, 8)).astype(np.float32)
    change = rng.choice([-0.1, 0.1], x.shape).astype(np.float32)
    change[x + change < 0] = 0.1
    change[x + change > 1] = -0.1
    y = np.arange(6)
    return {"x": x, "x_adv": x + change, "y": y, "predicted": np.stack([y, y, (y + 1) % 6])}


@pytest.fixture(scope="module")
def nairobi_hash():
    return load_device("ibm_nairobi").hash


@pytest.fixture(scope="module")
def source(nairobi_hash):
    shares = {
        "none": (0.97, 0.0),
        "crosstalk 0.1": (0.95, 0.3),
        "crosstalk 0.3": (0.93, 0.5),
        "masked": (0.90, 0.9),
        EVIL: (0.6, 0.1),
    }
    results = a_suite(shares, device_hash=nairobi_hash)
    gone = [r for r in results if r.cell.defence == EVIL and r.cell.attack == "pgd"]
    arrays = {r.key: kept_examples() for r in results if r.cell.attack == "pgd"}
    return a_source(
        [r for r in results if r not in gone],
        title=EVIL,
        suite=json.dumps({"name": EVIL}),
        cells=tuple(r.cell for r in results),
        classical=frozenset({"none", "masked", EVIL}),
        failures={gone[0].cell: f"ValueError: {EVIL}"},
        examples=arrays.get,
    )


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    return write_source(source, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Elements(html)


def view_of(results, **more):
    return a_source(results, **more).views[0]


def charts(source):
    return {chart.key: chart for chart in charts_of(source.views[0], source.families)}


# What it says


def test_headline_says_what_all_attacks_leave_and_names_the_strongest():
    view = view_of(a_suite())
    shown = {
        row[0]: dict(zip(headline(view).columns, row, strict=True)) for row in headline(view).rows
    }
    plain = shown["none"]
    clean = next(r.accuracy for r in view.results if r.cell == cell())
    assert plain["clean"] == percent(clean)
    tried = [r for r in view.results if r.cell.defence == "none" and r.cell.eps == 0.1]
    strongest = min(tried, key=lambda r: r.accuracy.value)
    left, by = plain["at worst, L∞ ε 0.1"].splitlines()
    assert left == percent(strongest.accuracy)  # these images all fall in the same order
    alone = f"{100 * strongest.accuracy.value:.1f}"
    assert by == f"of 6; {strongest.cell.attack}, {strongest.cell.rung} alone {alone}"
    assert shown["masked (unreliable)"]["audit"] == "unreliable: gradients exist"
    assert shown["crosstalk 0.3"]["clean, against undefended"].startswith("\N{MINUS SIGN}")


def test_two_attacks_leave_less_than_the_stronger_alone():
    one = outcomes(0.5)
    results = [result(cell(), outcomes(0.9))]
    results += [
        result(attack(rung=rung), kept) for rung, kept in (("transfer", one), ("adaptive", ~one))
    ]
    view = view_of(results)
    (row,) = headline(view).rows
    assert row[-1].splitlines()[0] == percent(accuracy_interval(np.zeros_like(one)))
    (pareto,) = charts(a_source(results))["pareto"].panels
    assert pareto.series[0].points[0].y.value == 0


def test_the_names_of_many_defences_stand_below_the_panel():
    results = [
        result(of(defence=f"a defence with a long name {n}"), outcomes(0.5))
        for n in range(25)
        for of in (cell, attack)
    ]
    figure = matplotlib_figure(charts(a_source(results))["pareto"])
    figure.canvas.draw()
    (legend,), (axes,) = figure.legends, figure.axes
    below = legend.get_window_extent()
    assert below.y0 >= 0
    assert below.y1 <= axes.get_tightbbox().y0
    assert axes.get_window_extent().height > 200


def test_improvement_gives_both_accuracies_and_says_where_a_ratio_means_nothing():
    right = np.zeros((1, 200), dtype=bool)
    plain, weak, strong = (right.copy() for _ in range(3))
    plain[:, :50], weak[:, :4], strong[:, :150] = True, True, True
    results = [
        result(attack(eps=0.1), plain),
        result(attack(eps=0.2), weak),
        result(attack(eps=0.1, defence="d"), strong),
        result(attack(eps=0.2, defence="d"), plain),
        result(attack(eps=0.3, defence="d"), plain),
    ]
    rows = {row[1]: row[2:] for row in improvements(view_of(results)).rows}
    first = rows["pgd · white-box · L∞ ε 0.1"]
    assert first[0].startswith("25.0 [")
    assert first[1].startswith("75.0 [")
    assert first[2].startswith("+50.0 [+4")
    assert first[3] == "+200 %"
    assert rows["pgd · white-box · L∞ ε 0.2"][3] == "not meaningful"
    missing = rows["pgd · white-box · L∞ ε 0.3"]
    assert (missing[0], *missing[2:]) == ("missing", "missing", "missing")


def test_over_seeds_the_mean_is_shown_with_the_widest_interval():
    results = [result(cell(seed=s), outcomes(share)) for s, share in enumerate((0.5, 0.8))]
    shown = view_of(results).accuracy("none")
    low, high = results[0].accuracy, results[1].accuracy
    assert shown.value == pytest.approx((low.value + high.value) / 2)
    assert (shown.low, shown.high) == (low.low, high.high)


def test_a_classical_defence_counts_for_every_device():
    results = [
        result(cell(), outcomes(0.9)),
        result(cell(defence="c", device="a"), outcomes(0.8)),
        result(cell(defence="c", device="b"), outcomes(0.7)),
    ]
    views = a_source(results, classical=frozenset({"none"})).views
    assert [(v.device, sorted(v.defences)) for v in views] == [
        ("a", ["c", "none"]),
        ("b", ["c", "none"]),
    ]
    assert views[1].accuracy("none").value == pytest.approx(0.9)


def test_budgets_of_different_norms_are_not_mixed():
    results = [
        result(attack(eps=0.5), outcomes(0.5)),
        result(attack("cw", eps=0.5), outcomes(0.1), norm="2"),
    ]
    view = view_of(results)
    assert [str(budget) for budget in view.budgets] == [
        "L2 ε 0.5",
        "L∞ ε 0.5",
    ]
    assert view.strongest("none", view.budgets[1])[0].attack == "pgd"


def test_charts_show_what_was_measured_and_nothing_else(source):
    view = source.views[0]
    panel = charts(source)["epsilon"].panels[0]
    assert panel.title == "fgsm (L∞) · transfer"
    measured = {
        (r.cell.defence, r.cell.eps or 0.0): r.accuracy
        for r in view.results
        if r.cell.kind == "clean" or (r.cell.attack, r.cell.rung) == ("fgsm", "transfer")
    }
    shown = {
        (series.name.removesuffix(" (unreliable)"), point.x): point.y
        for series in panel.series
        for point in series.points
    }
    assert shown == measured
    pgd = next(p for p in charts(source)["epsilon"].panels if p.title == "pgd (L∞) · adaptive")
    assert EVIL not in [series.name for series in pgd.series]


def test_accuracy_against_the_fraction_has_a_curve_for_each_budget(source):
    chart = charts(source)["fraction"]
    assert {s.name for p in chart.panels for s in p.series} == {"clean", "L∞ ε 0.1", "L∞ ε 0.2"}
    assert {tuple(pt.x for pt in s.points) for p in chart.panels for s in p.series} == {(0.1, 0.3)}
    assert "fraction" not in charts(replace(source, families=()))


def test_defences_that_differ_only_in_their_fraction_are_a_family():
    def steps(fraction, **more):
        return [{"name": "uniform", "fraction": fraction, **more}]

    found = families_of(
        {
            "a": steps(0.3),
            "b": steps(0.1),
            "c": steps(0.2, shots=1024),
            "d": steps(0.4, shots=1024),
            "e": steps(0.5, gain="raw"),
            "none": [],
        }
    )
    assert [members for _, members in found] == [[(0.1, "b"), (0.3, "a")], [(0.2, "c"), (0.4, "d")]]
    assert len({name for name, _ in found}) == 2


def test_eot_curve_and_plateau(source):
    points = charts(source)["samples"].panels[0].series[0].points
    assert [point.x for point in points] == [1, 5]


def test_pareto_front_leaves_out_what_another_beats_and_what_is_unreliable(source):
    panel = charts(source)["pareto"].panels[-1]
    front = {s.name for s in panel.series if "on the front" in s.points[0].note}
    assert front == {"none", "crosstalk 0.1", "crosstalk 0.3"}  # each less clean, more robust
    assert len(panel.front) == 3


def test_every_chart_calls_a_failed_defence_unreliable(source):
    for key, chart in charts(source).items():
        names = {series.name for panel in chart.panels for series in panel.series}
        assert "masked" not in names, key
        if key != "fraction":
            assert "masked (unreliable)" in names, key
            assert "masked (unreliable)" in str(table_of(chart)), key


def test_missing_cells_are_said_to_be_missing(source, page):
    rows = [row for table in accuracies(source.views[0]) for row in table.rows]
    assert all(row[-1] == "missing" for row in rows if row[0] == "pgd")
    text = "".join(page.text)
    assert "6 of 70 cells were not measured" in text
    assert f"ValueError: {EVIL}" in text


# How it is drawn


def test_plotly_accepts_every_figure(source):
    for chart in charts(source).values():
        assert chart.panels
        for figure in plotly_figures(chart):
            assert figure["data"]
            go.Figure({"data": figure["data"], "layout": figure["layout"]})


@pytest.mark.parametrize("extension", ["png", "svg"])
def test_every_figure_is_a_file(source, folder, extension):
    names = {path.stem for path in (folder / "figures").glob(f"*.{extension}")}
    circuits = {"device-1-circuit-plain", "device-1-circuit-crosstalk"}
    assert names == {f"results-1-{key}" for key in charts(source)} | circuits
    for path in (folder / "figures").glob(f"*.{extension}"):
        if extension == "png":
            pixels = np.asarray(Image.open(path).convert("L"))
            assert pixels.std() > 5, path
        else:
            assert len(list(ElementTree.parse(path).iter())) > 20, path


def test_same_results_give_the_same_files(source, folder):
    for key in ("pareto", "heat"):
        path = folder / "figures" / f"results-1-{key}.svg"
        assert picture(charts(source)[key], "svg") == path.read_bytes()
    drawing = circuit_drawings(load_device("ibm_nairobi"))[1]
    path = folder / "figures" / f"device-1-{drawing.key}.svg"
    assert drawing.image() == path.read_bytes()


def luminance(colour):
    """WCAG's relative luminance of #rrggbb."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def themes(html):
    """The page's colours by name: light, dark."""
    blocks = re.findall(r":root \{(.*?)\}", html, re.S)
    return [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in blocks[:2]]


def test_contrast_is_that_of_wcag_aa(html):
    light, dark = themes(html)
    for theme in (light, dark):
        for name in ("text", "muted", "link", "good", "bad"):
            for ground in ("page", "surface", "warning"):
                assert contrast(theme[name], theme[ground]) >= 4.5, (name, ground)
        for colour in COLOURS:
            assert contrast(colour, theme["surface"]) >= 3, colour
    assert light["page"] != dark["page"]


def test_figures_in_a_heat_map_are_legible():
    for accuracy in range(101):
        red, green, blue = (round(255 * c) for c in colormaps["cividis"](accuracy / 100)[:3])
        assert contrast(f"#{red:02x}{green:02x}{blue:02x}", ink(accuracy)) >= 4.5, accuracy


# The page


def test_names_are_text_everywhere(page, html):
    assert len(page.all("script")) == 3  # data, Plotly, ours
    assert "".join(page.text).count(EVIL) > 10
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.S)
    figures = json.loads(data.group(1))
    names = {trace.get("name") for figure in figures for trace in figure["data"]}
    assert any("&lt;script&gt;" in str(name) for name in names)  # Plotly reads markup
    assert not any("<script" in str(name) for name in names)


def test_page_needs_nothing_but_itself(page):
    for tag, attributes in page.found:
        for name in ("src", "srcset", "href", "data", "action", "poster"):
            value = attributes.get(name, "")
            assert value.startswith(("#", "data:image/")) or not value, (tag, name, value[:80])
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "@import" not in "".join(page.text)


def test_page_can_be_read_without_seeing_it(page):
    tags = [tag for tag, _ in page.found]
    for landmark in ("main", "header", "nav", "footer"):
        assert tags.count(landmark) == 1
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(image["alt"] for image in page.all("img"))
    plots = [a for a in page.all("div") if a.get("class") == "plot"]
    assert plots
    assert all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in plots)
    assert tags.count("caption") == tags.count("table")
    assert all(th.get("scope") in ("row", "col") for th in page.all("th"))
    identifiers = [a["id"] for _, a in page.found if "id" in a]
    assert len(set(identifiers)) == len(identifiers)
    targets = [a["href"][1:] for a in page.all("a")]
    assert set(targets) <= set(identifiers)


def test_page_says_what_was_run(page, nairobi_hash):
    text = " ".join("".join(page.text).split())
    for words in ("lenet5", "mnist5k", nairobi_hash, "1,024", "torch", "2.9.1", "64 of 70"):
        assert words in text, words
    assert "Leakage, drift" in text
    assert "never by the attack’s own verdict" in text


def test_gallery_shows_images_and_says_how_much_the_perturbation_is_amplified(page):
    alts = [image["alt"] for image in page.all("img")]
    assert "Its perturbation, 5 times amplified" in alts  # 0.1 a pixel, half the range is 0.5
    assert "Their sum, taken for class 2 (in 2 of 3 draws)" in alts
    decoded = []
    for image in page.all("img"):
        kind, data = image["src"].split(";base64,")
        if kind == "data:image/png":
            decoded.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
    kept = kept_examples()
    assert np.abs(decoded[0] / 255 - kept["x"][0, 0]).max() <= 0.5 / 255 + 1e-6
    assert set(np.unique(decoded[1])) <= {0, 255}
    assert len(decoded) == 3 * 4 * 4  # four images of each defence whose examples were kept


def test_circuits_are_drawn_or_it_is_said_why_not(source, folder, tmp_path):
    drawn = Elements((folder / "report.html").read_text())
    alts = [image["alt"] for image in drawn.all("img") if "Circuit" in image["alt"]]
    assert "sx on q0, rz on q0, sx on q0, rz on q0, sx on q0, measure on q0." in alts[0]
    assert "x on q1, delay on q1, x on q1" in alts[1]
    results = a_suite(device_hash="0" * 64)
    for changed, reason in (
        (a_source(results), "has changed since the run"),
        (a_source(results, devices={"ibm_nairobi": "ibm_nowhere"}), "Unknown device"),
    ):
        page = Elements((write_source(changed, tmp_path, ["html"]) / "report.html").read_text())
        assert reason in "".join(page.text)
        assert not [i for i in page.all("img") if "Circuit" in i["alt"]]


def test_a_run_of_clean_images_only_has_a_page(tmp_path):
    page = (
        write_source(a_source([result(cell(), outcomes(0.9))]), tmp_path, ["html"])
    ) / "report.html"
    text = "".join(Elements(page.read_text()).text)
    assert "not audited" in text
    assert "all 1 cells" in text


def test_unknown_formats_are_refused(source, tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'html'"):
        write_source(source, tmp_path, ["htm"])


# The command


@pytest.fixture
def run(tmp_path):
    """A run folder with a suite, results, a failure and examples."""
    suite = Suite.model_validate(
        {
            "name": "ladder",
            "data": "mnist5k",
            "models": {"lenet5": {"architecture": "lenet5"}},
            "defences": {
                "none": "none",
                "crosstalk 0.1": {"name": "qnad-uniform", "fraction": 0.1},
                "crosstalk 0.3": {"name": "qnad-uniform", "fraction": 0.3},
                "masked": "feature-squeezing",
            },
            "attacks": ["fgsm", "pgd"],
            "eps": [0.1, 0.2],
        }
    )
    results = a_suite()
    run = Run.begin(tmp_path / "run", suite, {r.key: r.cell for r in results})
    for found in results[:-1]:
        run.append(found)
    run.set_failures([Failure(key=results[-1].key, cell=results[-1].cell, reason="no memory")])
    attacked = next(r for r in results if r.cell.eps == 0.2 and r.cell.rung == "adaptive")
    write_arrays(run.folder / "examples" / f"{attacked.key}.npz", kept_examples())
    return run


def test_command_writes_what_it_is_asked_for(run, tmp_path):
    formats = ["--format", "html, csv,parquet,latex"]
    shown = CliRunner().invoke(app, ["report", str(run.folder), *formats])
    assert shown.exit_code == 0, shown.output
    files = {path.name for path in (run.folder / "report").iterdir()}
    assert files == {"report.html", "results.csv", "results.parquet", "results.tex"}
    assert all(f"report/{name}" in shown.output for name in files)
    shown = CliRunner().invoke(
        app, ["report", str(run.folder), "--format", "csv", "--output", str(tmp_path / "there")]
    )
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["results.csv"]


def test_a_source_is_read_from_a_run(run):
    source = read_source(run)
    assert source.title == "ladder"
    assert source.undefended == "none"
    assert source.classical == {"none", "masked"}
    assert source.families == [("qnad-uniform", [(0.1, "crosstalk 0.1"), (0.3, "crosstalk 0.3")])]
    assert list(source.failures.values()) == ["no memory"]
    assert source.views[0].failed("masked") == ["gradients exist"]
    assert len(source.results) == len(source.cells) - 1


def test_errors_of_the_command_say_what_to_do(run, tmp_path):
    def error(*arguments):
        return str(CliRunner().invoke(app, ["report", *arguments]).exception)

    assert "Did you mean 'latex'" in error(str(run.folder), "--format", "html,latx")
    assert "qnad evaluate" in error(str(tmp_path))
    (run.folder / "results.jsonl").unlink()
    assert "has no results yet" in error(str(run.folder))
    assert "has no results yet" in error(str(run.folder), "--format", "csv")
