from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmalign.errors import DataError
from mmalign.evaluation.embedding_map import embedding_map
from mmalign.evaluation.html import render_report
from mmalign.evaluation.html_charts import (
    COLOURS,
    category_colours,
    line_chart,
    scatter_map,
    tick_values,
)
from mmalign.evaluation.html_data import (
    Curve,
    Example,
    Fact,
    ItemCard,
    ItemMap,
    MetricTable,
    Recommendation,
    ReportData,
    Step,
)

HOSTILE = """<script>alert('x')</script> "'><img src=x onerror=alert(1)> & ]]> </style></title>"""
VOID = {"meta", "img", "input", "br", "line"}


class Page(HTMLParser):
    """Checks nesting while reading; keeps every tag with its attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"attribute given twice in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(size=(300, 200), kind="JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "#c05020").save(buffer, kind)
    return buffer.getvalue()


def sample_report(text: str = "plain") -> ReportData:
    """A report with every part filled, all of its texts being the given one."""
    card = ItemCard(text, picture(), detail=text)
    numbers = {"warm": {"ndcg@20": 0.2}, "cold": {"ndcg@20": 0.3, "recall@20": 0.4}}
    points = np.array([[0, 0], [1, 1], [2, 0.5]], dtype=np.float32)
    pick = Recommendation(card, 0.5, True, True, (card, card), {text: 2.0, "image": 1.0})
    return ReportData(
        title=text,
        subtitle=text,
        summary=(Fact(text, text, text),),
        dataset=(Fact(text, text, text),),
        tables=(MetricTable(text, {text: numbers, "popularity": numbers}, ours=text, note=text),),
        curves=(Curve(text, text, ((0, 1.0), (1, 0.5))), Curve(text, "cold", ((0, 1), (1, 2)))),
        map=ItemMap(points, np.array([True, False, False]), (text,) * 3, (text,) * 3),
        examples=(Example(text, (card, ItemCard(text)), (pick,), note=text),),
        steps=(Step(text, 61.0), Step("fit", 3.0)),
        footer=text,
    )


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(sample_report())


def test_every_part_is_there_and_the_page_is_well_formed(page):
    read = Page(page)
    shown = [a["id"] for a in read.of("section")]
    assert shown == ["results", "training", "map", "examples", "data", "time"]
    assert [a["href"] for a in read.of("a") if a.get("class") != "skip"] == [f"#{i}" for i in shown]
    assert len(read.of("html")) == len(read.of("h1")) == len(read.of("main")) == 1


def test_a_report_of_nothing_is_a_page_without_sections():
    read = Page(render_report(ReportData("Empty")))
    assert not read.of("section")
    assert "Empty" in read.text


def test_the_page_asks_nothing_of_a_network_and_runs_nothing(page):
    read = Page(page)
    assert not {tag for tag, _ in read.tags} & {"script", "link", "iframe", "object", "base"}
    addresses = [
        value
        for _, attributes in read.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "xlink:href")
    ]
    assert all(a.startswith(("#", "data:image/jpeg;base64,")) for a in addresses)
    assert not re.search(r"url\(|@import|https?://", page)
    policy = next(a["content"] for a in read.of("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_hostile_texts_stay_texts():
    plain, hostile = (
        Page(render_report(sample_report())),
        Page(render_report(sample_report(HOSTILE))),
    )
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    for (_, ours), (_, theirs) in zip(plain.tags, hostile.tags, strict=True):
        assert ours.keys() == theirs.keys()
    assert HOSTILE in hostile.text
    assert any(a["alt"] == HOSTILE for a in hostile.of("img"))


@given(text=st.text(min_size=1))
def test_any_title_keeps_the_page_well_formed(text):
    card = ItemCard(text, detail=text)
    pick = Recommendation(card, 1.0, cold=False, nearest=(card,))
    Page(render_report(ReportData(text, examples=(Example(text, (card,), (pick,)),))))


def test_pictures_headers_and_charts_can_be_read_out(page):
    read = Page(page)
    assert all(a["alt"] for a in read.of("img"))
    assert all(a.get("scope") for a in read.of("th"))
    assert all(a["role"] == "img" and a["aria-label"] for a in read.of("svg"))
    assert read.of("html")[0]["lang"] == "en"


def test_best_of_a_column_is_bold_ties_included_and_absent_is_a_dash():
    rows = {
        "a": {"warm": {"ndcg@20": 0.21004}, "cold": {"ndcg@20": float("nan")}},
        "b": {"warm": {"ndcg@20": 0.2096}, "cold": {"ndcg@20": 0.05}},
        "c": {"warm": {"ndcg@20": 0.1}},
    }
    table = MetricTable("t", rows, metrics=("ndcg@20",))
    found = render_report(ReportData("t", tables=(table,)))
    lines = re.findall(r"<tr><th scope=\"row\">(\w)</th>(.*?)</tr>", found)
    cells = {
        name: re.findall(r"<td[^>]*>(<strong>)?([\d.]+|&ndash;)", cells) for name, cells in lines
    }
    assert cells == {
        "a": [("<strong>", "0.210"), ("", "&ndash;")],
        "b": [("<strong>", "0.210"), ("<strong>", "0.050")],  # the same as printed
        "c": [("", "0.100"), ("", "&ndash;")],
    }
    assert "<td class" in found
    assert ">NDCG@20<" in found


def test_the_row_of_our_model_is_marked_once(page):
    assert page.count('<tr class="ours">') == 1


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        picture()[:200],
        picture((20_000, 10_000), "PNG"),  # more pixels than PIL will decode
    ],
    ids=["empty", "svg", "truncated", "bomb"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_broken_picture_becomes_an_initial(image):
    example = Example("u", (ItemCard(" lamp", image),), ())
    read = Page(render_report(ReportData("t", examples=(example,))))
    assert not read.of("img")
    assert "L" in read.text


def test_a_missing_file_becomes_an_initial(tmp_path):
    example = Example("u", (ItemCard("", tmp_path / "gone.jpg"),), ())
    read = Page(render_report(ReportData("t", examples=(example,))))
    assert "?" in read.text


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_pictures_are_shrunk_and_written_anew(kind, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(picture((1200, 600), kind))
    example = Example("u", (ItemCard("x", path),), ())
    (image,) = Page(render_report(ReportData("t", examples=(example,)))).of("img")
    data = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(data)) as small:
        assert (small.format, small.size) == ("JPEG", (192, 96))


def test_a_thumbnail_shows_what_an_encoder_is_shown():
    """A grey ramp of 16 bits; a picture that is transparent; one that a camera has turned."""
    ramp = Image.fromarray(np.tile(np.linspace(0, 65_535, 64), (64, 1)).astype(np.uint16))
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        (ramp, "PNG", {}),
        (clear, "PNG", {}),
        (Image.new("RGB", (9, 3)), "JPEG", {"exif": exif}),
    ]
    cards = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        cards.append(ItemCard("x", buffer.getvalue()))
    page = Page(render_report(ReportData("t", examples=(Example("u", tuple(cards), ()),))))
    shown = []
    for thumbnail in page.of("img"):
        data = base64.b64decode(thumbnail["src"].removeprefix("data:image/jpeg;base64,"))
        shown.append(Image.open(io.BytesIO(data)))
    assert 120 < np.asarray(shown[0]).mean() < 135
    assert np.asarray(shown[1]).min() > 250
    assert shown[2].size == (3, 9)


def test_shares_are_scaled_to_one_and_coloured_alike_everywhere():
    card = ItemCard("x")
    picks = (
        Recommendation(card, 1.0, cold=True, shares={"text": 1.0, "image": 3.0}),
        Recommendation(card, 0.9, cold=False, shares={"image": 2.0}),
        Recommendation(card, 0.8, cold=False, shares={"image": 0.0}),
    )
    found = render_report(ReportData("t", examples=(Example("u", (), picks),)))
    assert re.findall(r'<i class="(c\d)" style="--part:([\d.]+)"', found) == [
        ("c1", "0.750"),  # the largest first, whatever its colour
        ("c0", "0.250"),
        ("c1", "1.000"),
    ]
    assert "image <b>75%</b>" in found
    assert "Nothing yet." in found


def test_curves_are_placed_by_their_values_and_break_at_gaps():
    curve = Curve("loss", "train", ((0, 0.0), (1, 1.0), (2, math.nan), (3, 0.5), (4, 1.0)))
    path = re.search(r'class="line c0" d="([^"]+)"', line_chart("loss", [curve])).group(1)
    assert re.sub(r"[\d. ]+", " ", path) == "M L M L "
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", path), dtype=float)
    assert np.all(np.diff(points[:, 0]) > 0)
    assert points[0, 1] > points[2, 1] > points[1, 1] == points[3, 1]  # y grows downwards
    assert points[2, 1] == pytest.approx((points[0, 1] + points[1, 1]) / 2, abs=0.1)


@pytest.mark.parametrize("values", [(0.3,), (0.3, 0.3), (0.0, 0.0), (-1e-9, 1e-9), (1e12, -1e12)])
def test_flat_short_and_extreme_curves_are_drawn(values):
    chart = line_chart("c", [Curve("c", "n", tuple(enumerate(values)))])
    assert "nan" not in chart
    assert "inf" not in chart
    Page(chart)


def test_curves_without_a_number_say_so():
    assert "No values" in line_chart("c", [Curve("c", "n", ((0, math.nan),))])


def test_slices_have_one_colour_in_tables_and_charts(page):
    for name, colour in (("cold", "c2"), ("warm", "c1")):
        assert f'class="slice first {colour}" scope="colgroup" colspan="2">{name}' in page
    assert re.search(r'class="name c2"[^>]*>cold', page)


@given(st.floats(-1e9, 1e9, allow_subnormal=False), st.floats(0, 1e9, allow_subnormal=False))
def test_ticks_are_few_and_enclose_the_values(low, span):
    ticks = tick_values(low, low + span)
    slack = 1e-6 * (abs(low) + span + 1)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 7
    assert all(b > a for a, b in pairwise(ticks))


def test_map_draws_each_item_once_by_state_with_its_title():
    points = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)
    data = ItemMap(points, np.array([False, True, False]), ("a", "b", "a"), ("one", "two", "three"))
    chart = scatter_map(data)
    dots = re.findall(r'<circle class="(c\d)" cx="([\d.]+)" cy="([\d.]+)".*?<title>(\w+)', chart)
    assert [(d[0], d[3]) for d in dots] == [("c0", "one"), ("c0", "three")]
    (one, three) = (np.array(d[1:3], dtype=float) for d in dots)
    assert one[0] == three[0]
    assert one[1] > three[1]  # up in the data is up on the page
    assert re.findall(r'<path class="(c\d)".*?<title>(\w+)', chart) == [("c1", "two")]


def test_map_names_categories_that_lie_together_and_only_those():
    rng = np.random.default_rng(0)
    together = rng.normal(size=(60, 2)) * 0.05 + [3, 3]
    apart = rng.uniform(-4, 4, size=(140, 2))
    data = ItemMap(
        np.concatenate([together, apart]).astype(np.float32),
        np.zeros(200, dtype=bool),
        ("near",) * 60 + ("far",) * 140,
        ("x",) * 200,
    )
    assert re.findall(r'class="place"[^>]*>(\w+)', scatter_map(data)) == ["near"]


def test_rare_categories_share_a_colour():
    names = [f"k{i}" for i in range(COLOURS + 2) for _ in range(20 - i)]
    colours = category_colours(names)
    assert colours["k0"] == "c0"
    assert len(set(colours.values())) == COLOURS + 1
    assert colours[f"k{COLOURS}"] == colours[f"k{COLOURS + 1}"] == "rest"
    points = np.zeros((len(names), 2), dtype=np.float32)
    data = ItemMap(points, np.zeros(len(names), dtype=bool), tuple(names), tuple(names))
    assert ">other<" in render_report(ReportData("t", map=data))


def test_a_map_of_unaligned_or_unbounded_points_is_refused():
    flags, names = np.zeros(2, dtype=bool), ("a", "b")
    with pytest.raises(DataError, match="one point"):
        ItemMap(np.zeros((3, 2), dtype=np.float32), flags, names, names)
    with pytest.raises(DataError, match="one point"):
        ItemMap(np.zeros((2, 3), dtype=np.float32), flags, names, names)
    with pytest.raises(DataError, match="not finite"):
        ItemMap(np.array([[0, np.nan], [0, 0]], dtype=np.float32), flags, names, names)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 01 s"), (119.7, "2 min 00 s")],
)
def test_durations_read_well(seconds, shown):
    assert f"<td>{shown}</td>" in render_report(ReportData("t", steps=(Step("s", seconds),)))


@pytest.mark.parametrize("count", [20, 150])  # PCA alone, and t-SNE
def test_embedding_map_keeps_neighbourhoods_and_repeats(count):
    rng = np.random.default_rng(1)
    group = np.arange(count) % 4
    vectors = rng.normal(size=(4, 24))[group] + 0.1 * rng.normal(size=(count, 24))
    plane = embedding_map(vectors)
    assert plane.dtype == np.float32
    assert plane.shape == (count, 2)
    assert np.abs(plane).max() == pytest.approx(1)
    distance = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert np.mean(group[distance.argmin(axis=1)] == group) > 0.95
    np.testing.assert_array_equal(plane, embedding_map(vectors))


def test_embedding_map_looks_at_directions_not_lengths():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(20, 8))
    lengths = rng.uniform(0.1, 50, size=(20, 1))
    np.testing.assert_allclose(embedding_map(vectors), embedding_map(vectors * lengths), atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (3, 1), (60, 2), (60, 0)])
def test_embedding_map_of_odd_shapes(shape):
    plane = embedding_map(np.ones(shape))
    assert plane.shape == (shape[0], 2)
    assert not plane.any()  # all alike: one place


@pytest.mark.parametrize(
    "vectors", [np.array([[0.0, np.nan]]), np.ones(3), np.full((2, 2), np.inf)]
)
def test_embedding_map_refuses_what_is_no_finite_matrix(vectors):
    with pytest.raises(DataError, match="finite matrix"):
        embedding_map(vectors)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_of_one_direction_are_one_point(rng, dtype):
    vectors = np.outer(rng.uniform(1, 5, 20), rng.normal(size=16)).astype(dtype)
    assert not embedding_map(vectors).any()
