"""The page: whole and well-formed, says what must be said, and no name in it becomes markup."""

import dataclasses
import math
import re
from html.parser import HTMLParser

import pytest
from findings import GAINS, proved, sample
from hostile import NAMES, THUMBNAILS, hostile

from trickbag.ground.text import legible
from trickbag.report.findings import Findings
from trickbag.report.page import page
from trickbag.report.wording import chance, points, verdict
from trickbag.statistics.intervals import Interval

VOID = {"meta", "img", "wbr"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
ATTRIBUTES = {
    *(
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "id",
        "aria-labelledby",
        "aria-label",
        "aria-hidden",
        "role",
    ),
    *("tabindex", "title", "scope", "data-label", "value", "src", "alt", "width", "height", "viewbox", "preserveaspectratio"),
    *("overflow", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "d", "dx", "dy", "points", "text-anchor"),
}


class Tree(HTMLParser):
    """Reads the page strictly: every element is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.sections: dict[str, str] = {}
        self.texts: list[str] = []
        self.here = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]
        if tag == "h2":
            self.here = dict(attrs).get("id") or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "style" not in self.open:
            self.sections[self.here] = self.sections.get(self.here, "") + data

    def said(self, section: str) -> str:
        return " ".join(self.sections[section].split())


def tree(findings: Findings) -> Tree:
    return Tree(page(findings))


def test_sections_stand_in_the_order_of_what_a_reader_asks() -> None:
    order = [value for tag, key, value in tree(sample()).attributes if (tag, key) == ("h2", "id")]
    assert order == [
        *("answer", "effects", "arms", "times", "interactions", "curves", "classes", "calibration", "pictures"),
        *("check", "noise", "failures", "decided", "environment", "paper"),
    ]


def test_the_page_needs_nothing_else() -> None:
    for findings in (sample(), proved(sample()), hostile()):
        read = tree(findings)
        assert ("meta", "content", POLICY) in read.attributes
        assert not {"script", "link", "iframe", "object", "embed", "base", "form", "a", "image", "use", "foreignobject"} & set(
            read.tags
        )
        assert {key for _, key, _ in read.attributes} <= ATTRIBUTES
        assert all((value or "").startswith("data:image/jpeg;base64,") for _, key, value in read.attributes if key == "src")
        assert "url(" not in page(sample())
        assert "@import" not in page(sample())


def test_the_policy_comes_before_anything_that_it_governs() -> None:
    text = page(sample())
    assert text.index("Content-Security-Policy") < text.index("<title") < text.index("<style")
    assert text.lstrip().startswith("<!doctype html>")


def test_hostile_names_are_text() -> None:
    text = page(hostile())
    text.encode()
    plain = page(proved(sample(arms=10)))
    assert "<script" not in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2028\u2029\ufeff\ud800-\udfff]", text)
    read, innocent = Tree(text), Tree(plain)
    assert set(read.tags) <= set(innocent.tags)
    assert {(tag, key) for tag, key, _ in read.attributes} <= {(tag, key) for tag, key, _ in innocent.attributes} | {
        ("bdi", "title")
    }
    said = "".join(read.texts)
    for name in NAMES:
        if "\n" not in name and len(name) < 60:
            assert legible(name) in said, name
    assert "49" not in [word for word in said.split() if "7*7" in word]


def test_only_an_embedded_jpeg_is_a_thumbnail() -> None:
    text = page(hostile())
    assert text.count("<img") == len(sample().hardest) + len(sample().rescued)
    assert text.count("no thumbnail") == len(THUMBNAILS)


def test_the_answer_stands_first_with_its_recipe() -> None:
    findings = sample()
    said = tree(findings).said("answer")
    assert said.startswith("The answer " + " ".join(findings.answer))
    assert 'tricks = [ "ema(half_life=0.02)"' in said


def test_the_proof_and_its_price_stand_in_the_answer() -> None:
    assert "Gain in the proof" not in tree(sample()).said("answer")
    said = tree(proved(sample())).said("answer")
    assert "+0.58 points proved; 5 fresh seeds, 2,500 photos that chose nothing" in said
    assert "84.1 % → 84.7 %" in said.replace("\u00a0", " ")
    assert "1.03× times the reference's time for training and judging" in said


def test_every_change_says_what_is_expected_of_it_and_what_would_decide_it() -> None:
    said = tree(sample()).said("answer").replace("\u00a0", " ")
    effects = [effect for effect in sample().effects if effect.expected is not None]
    assert len(effects) == len(GAINS)
    for effect in effects:
        assert f"{points(effect.expected)}{chance(effect.helps)}".replace("\u00a0", " ") in said, effect.name
        assert verdict(effect) in said
    assert "beliefs, not measurements" in said
    assert sample().prior in said


def test_selection_on_the_test_set_is_said() -> None:
    assert "Selected on the test set" in tree(dataclasses.replace(sample(), on_test=True)).said("answer")
    assert "Selected on the test set" not in tree(sample()).said("answer")


def test_few_seeds_give_no_verdict() -> None:
    said = tree(sample(seeds=2)).said("effects")
    assert "Descriptive only." in said
    assert "· descriptive only" in said
    assert "helps" not in said
    assert "Descriptive only." not in tree(sample()).said("effects")


def test_what_stands_outside_the_family_was_planned_too() -> None:
    said = tree(sample()).said("effects")
    assert "a control, judged by itself" in said
    assert "not declared" not in said


def test_failures_outrank_the_mean() -> None:
    read = tree(sample())
    said = read.said("arms")
    assert re.search(r"3 of 5 seeds diverged 14\.7 % to 94\.7 % 4\d\.\d % ±", said.replace("\u00a0", " "))
    assert "3 of 5 seeds diverged ▼ hurts" in read.said("effects")
    assert "3 of 5 seeds diverged; 95 % interval for the rate" in read.said("failures")
    assert "not finite at step 812" in read.said("failures")


def test_every_effect_shows_its_seeds_and_its_interval() -> None:
    findings = sample()
    text = page(findings)
    plot, rest = text.split('id="arms"')
    # One effect of twelve lies beyond the axis; the legend shows each mark too.
    assert plot.count('class="seed"') == 11 * 5 + 3
    assert plot.count('<line class="range"') == 3 * 11 + 3
    assert plot.count("−41.17</text>") == 1
    assert rest.split('id="interactions"')[1].split('id="curves"')[0].count('class="seed"') == 2 * 5 + 3


def test_sections_without_content_say_so_in_a_sentence() -> None:
    full = sample(arms=2)
    arms = tuple(
        dataclasses.replace(
            a, price=None, curve=None, reliability=(), recalls=(), accuracy=None, sd=None, accuracies=(None,) * 5
        )
        for a in full.arms
    )
    empty = dataclasses.replace(
        full,
        arms=arms,
        effects=(),
        aliases=(),
        not_run=(),
        hardest=(),
        rescued=(),
        check=(),
        noise=(),
        failures=(),
        answer=(),
        recommended="",
        decided=(),
        departures=(),
        environment=(),
        weakness="",
    )
    read = tree(empty)
    assert "interactions" not in read.sections
    assert "noise" not in read.sections
    assert "no contrast" in read.said("effects")
    assert "No arm has a curve" in read.said("curves")
    assert "No run failed." in read.said("failures")
    assert "no departures" in read.said("decided")
    assert not re.search(r"\b(nan|None|inf)\b", "".join(read.texts))


def test_numbers_that_are_missing_or_not_finite_are_dashes() -> None:
    full = sample(arms=3)
    arm = dataclasses.replace(full.arms[1], accuracy=math.nan, sd=math.nan, nll=math.nan, ece=math.nan, macro_recall=None)
    broken = dataclasses.replace(
        full.effects[0],
        difference=math.nan,
        points=(math.nan,) * 5,
        sd=None,
        over_seeds=None,
        interval=Interval(math.nan, math.nan),
    )
    read = tree(dataclasses.replace(full, arms=(full.arms[0], arm, full.arms[2]), effects=(broken, *full.effects[1:])))
    assert not re.search(r"\b(nan|inf|None)\b", "".join(read.texts))
    assert not [value for _, _, value in read.attributes if value and re.search(r"\b(nan|inf|None)\b", value)]


def test_times_on_a_shared_device_are_flagged() -> None:
    full = sample(arms=2)
    assert full.arms[1].price
    arm = dataclasses.replace(full.arms[1], price=dataclasses.replace(full.arms[1].price, alone=False))
    assert "They do not count as prices" in tree(dataclasses.replace(full, arms=(full.arms[0], arm))).said("arms")
    assert "They do not count" not in tree(full).said("arms")


def test_equal_findings_give_equal_bytes() -> None:
    assert page(proved(sample())) == page(proved(sample()))
    assert page(sample()) != page(proved(sample()))


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_stands_out_from_its_ground(scheme: str) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 : 1."""
    blocks = re.findall(r":root \{(.*?)\}", page(sample()), re.DOTALL)
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", blocks[("light", "dark", "print").index(scheme)]))
    assert len(colors) == 10
    for ink in ("ink", "quiet", "blue", "good", "bad"):
        for ground in ("paper", "faint"):
            assert _contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)
    assert _contrast(colors["ink"], colors["warn"]) >= 4.5


def _contrast(one: str, other: str) -> float:
    def light(color: str) -> float:
        digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)
