"""The drawings of simulations: what is drawn is where its numbers are, and says what it is."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from bench.scale.plots import KINDS, RESULTS, Line, Plot, draw, ticks, write_plots

SVG = "{http://www.w3.org/2000/svg}"


def plot(*lines, **options):
    return Plot("Times & sizes", "simulated", "hops", "seconds", lines, **options)


def circles(drawn):
    root = ElementTree.fromstring(drawn)
    return [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in root.iter(f"{SVG}circle")]


@pytest.mark.parametrize(
    ("most", "marks"),
    [
        (0, [0, 1]),
        (6, [0, 1, 2, 3, 4, 5, 6]),
        (0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (97, [0, 20, 40, 60, 80, 100]),
    ],
)
def test_axes_have_round_numbers_up_to_the_largest(most, marks):
    assert ticks(most) == marks


def test_points_are_where_their_numbers_are():
    (low, middle, high) = circles(draw(plot(Line("a", [(1, 0), (2, 5), (3, 10)]))))
    assert low[0] < middle[0] < high[0]
    assert middle[0] - low[0] == pytest.approx(high[0] - middle[0])
    assert low[1] - middle[1] == pytest.approx(middle[1] - high[1])
    assert high[1] > 0


def test_sizes_are_by_powers_of_ten():
    places = circles(draw(plot(Line("a", [(10, 1), (100, 1), (1000, 1)]), is_logarithmic=True)))
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0])


def test_what_is_extrapolated_is_dashed_and_texts_are_escaped():
    drawn = draw(plot(Line("<run>", [(1, 1), (2, 2)]), Line("line", [(1, 1), (3, 3)], is_extrapolated=True)))
    root = ElementTree.fromstring(drawn)
    assert [each.get("stroke-dasharray") for each in root.iter(f"{SVG}polyline")] == [None, "6 4"]
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert {"Times & sizes", "simulated", "<run>", "line", "hops", "seconds"} <= set(texts)


@pytest.mark.parametrize("points", [[], [(1, float("nan"))], [(1, float("inf"))]])
def test_what_can_not_be_drawn_is_refused(points):
    with pytest.raises(ValueError, match="'Times & sizes'"):
        draw(plot(Line("a", points)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_newest_results_that_are_kept_can_be_drawn(kind, tmp_path):
    newest = sorted(RESULTS.glob(f"*-{kind}.json"))[-1]
    (tmp_path / f"2000-01-01-{kind}.json").write_text("{}")  # an older one isn't looked at
    (tmp_path / newest.name).write_text(newest.read_text())
    written = write_plots(tmp_path, kind)
    assert len(written) == 3
    for path in written:
        assert circles(path.read_text())
    assert json.loads(newest.read_text())["machine"]["cpu"]


def test_without_results_nothing_is_drawn(tmp_path):
    assert write_plots(tmp_path, "scale-dht") == []
