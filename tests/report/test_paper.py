"""What a paper can paste: every figure is the findings', every citation is there, and no name is more than a name."""

import dataclasses
import re

from findings import onward, proved, sample
from hostile import hostile

from trickbag.report.latex import COLUMNS, effects_tex, escaped
from trickbag.report.methods import REFERENCES, methods, references_bib
from trickbag.report.page import page

KEY = re.compile(r"@\w+\{(\w+),")


def cited(text: str) -> set[str]:
    return {key for group in re.findall(r"(?<!\\)\[(@[^\]]*)\]", text) for key in re.findall(r"@(\w+)", group)}


def test_methods_have_the_figures_of_the_findings() -> None:
    findings = proved(sample())
    text = methods(findings)
    for said in (
        "food10 (10 classes) we compared 12 training recipes",
        "trained resnet50 for 40 epochs",
        "5 seeds (0, 1, 2, 3, 4)",
        "1,244 images in 1,190 independent groups",
        f"{sum(effect.declared for effect in findings.effects)} contrasts were declared",
        "within ±0.20 points",
        "5 fresh seeds on 2,500 images",
        "level of 5.0 %",
        "(hash 3f9c0a77b1de)",
        "Interim analyses spent S = 3, 5.",
        "We departed from it: The run of +sam with seed 3 was repeated",
        "3 trainings diverged",
        "torch 2.15.0",
    ):
        assert said in text, said
    assert not re.search(r"\b(None|nan)\b", text)


def test_methods_say_what_was_done_and_no_more() -> None:
    full = sample()
    plain = dataclasses.replace(full, effects=(), failures=(), departures=(), environment=(), groups=full.images)
    text = methods(plain)
    assert "There were no departures" in text
    for other in ("fresh seeds", "Holm", "diverged", "independent groups", "hierarchical"):
        assert other not in text, other
    assert cited(text) == set()
    assert "looks better than it is" in methods(dataclasses.replace(full, on_test=True))
    assert "had no part in it" not in methods(dataclasses.replace(full, on_test=True))


def test_the_references_are_those_that_the_methods_cite() -> None:
    for findings in (sample(), proved(sample()), hostile(), dataclasses.replace(sample(), design="factorial")):
        found = KEY.findall(references_bib(findings))
        assert len(found) == len(set(found))
        assert set(found) == cited(methods(findings))
    assert "box2005" in KEY.findall(references_bib(dataclasses.replace(sample(), design="factorial")))
    assert "box2005" not in KEY.findall(references_bib(sample()))
    assert KEY.findall(references_bib(dataclasses.replace(sample(), effects=()))) == []


def test_every_reference_is_well_formed_and_some_study_cites_it() -> None:
    everything = methods(dataclasses.replace(onward(proved(sample())), design="factorial"))
    assert cited(everything) == set(REFERENCES)
    for key, entry in REFERENCES.items():
        assert KEY.findall(entry) == [key]
        assert entry.count("{") == entry.count("}")
        assert key.endswith(re.findall(r"year = \{(\d{4})\}", entry)[0])


def test_a_name_is_no_citation_and_no_markup() -> None:
    text = methods(dataclasses.replace(sample(), name="[@holm1979] <b>x</b>", effects=()))
    assert cited(text) == set()
    assert r"\[\@holm1979\] \<b\>x\</b\>" in text
    assert not re.search(r"(?<!\\)<", methods(hostile()))


def test_the_table_has_the_declared_effects() -> None:
    findings = sample()
    lines = effects_tex(findings).splitlines()
    rows = [line for line in lines if line.endswith(r"\\")][1:]
    assert len(rows) == sum(effect.declared for effect in findings.effects)
    first = findings.effects[0]
    assert rows[0].startswith("mixup(alpha=0.2) & ")
    assert first.interval
    low, high = (f"{100 * end:+.2f}".replace("-", "$-$") for end in first.interval)
    assert f" & {low} to {high} & " in rows[0]
    assert r"1.02$\times$ \\" in rows[0]
    assert "×" not in "".join(rows)
    assert "−" not in "".join(rows)
    assert r"label\_smoothing(eps=0.1)" in rows[1]
    assert sum("not decided" in row for row in rows) == sum(e.declared and e.verdict == "open" for e in findings.effects)


def test_hostile_names_leave_the_table_whole() -> None:
    findings = hostile()
    text = effects_tex(findings)
    text.encode()
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert len(body) == 6 + sum(effect.declared for effect in findings.effects)
    for line in (line for line in body if line.endswith(r" \\")):
        left, depth = re.sub(r"\\[&%$#_{}]", "", line.removesuffix(r" \\")), 0
        assert left.count("&") == len(COLUMNS) - 1
        assert not re.search(r"[%#_^]", left)
        assert left.replace("$-$", "").replace(r"$\times$", "").count("$") == 0
        assert not re.search(r"[<>|]", left)
        assert set(re.findall(r"\\([A-Za-z]+)", left)) <= {"textbackslash", "textless", "textgreater", "textbar", "times"} | {
            "textasciitilde",
            "textasciicircum",
        }
        for brace in re.findall(r"[{}]", left):
            depth += 1 if brace == "{" else -1
            assert depth >= 0
        assert depth == 0


def test_every_special_character_is_set_as_itself() -> None:
    assert escaped("a~b^c\\d") == r"a\textasciitilde{}b\textasciicircum{}c\textbackslash{}d"
    assert escaped("&%$#_{}") == r"\&\%\$\#\_\{\}"
    assert escaped("寿司 é") == "寿司 é"


def test_a_row_cannot_begin_with_an_argument_of_the_row_before() -> None:
    assert escaped("[2cm] x").startswith("{[}")
    assert escaped("* x").startswith("{*}")


def test_the_page_shows_what_can_be_pasted() -> None:
    text = page(sample())
    last = text[text.index('id="paper"') :]
    assert "3f9c0a77b1de" in text[text.index('id="decided"') : text.index('id="environment"')]
    assert last.count("<details>") == 3
    for said in ("On the data set food10", r"label\_smoothing(eps=0.1)", "@article{holm1979,"):
        assert said in last, said
