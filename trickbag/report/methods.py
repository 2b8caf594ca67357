"""A study as a paper has it: how it was done, in Markdown that pandoc reads, and what that cites, in BibTeX.

Everything is taken from the findings. Names from outside are escaped, so that none is markup or a citation.
"""

import re
from collections import Counter

from trickbag.ground.text import counted
from trickbag.report.findings import Findings
from trickbag.report.tables import mark
from trickbag.report.wording import MEASURES, number, points, span

REFERENCES = {
    "holm1979": """@article{holm1979,
  author = {Holm, Sture},
  title = {A Simple Sequentially Rejective Multiple Test Procedure},
  journal = {Scandinavian Journal of Statistics},
  volume = {6},
  number = {2},
  pages = {65--70},
  year = {1979}
}""",
    "efron1982": """@book{efron1982,
  author = {Efron, Bradley},
  title = {The Jackknife, the Bootstrap and Other Resampling Plans},
  publisher = {SIAM},
  year = {1982}
}""",
    "liang1986": """@article{liang1986,
  author = {Liang, Kung-Yee and Zeger, Scott L.},
  title = {Longitudinal Data Analysis Using Generalized Linear Models},
  journal = {Biometrika},
  volume = {73},
  number = {1},
  pages = {13--22},
  year = {1986},
  doi = {10.1093/biomet/73.1.13}
}""",
    "searle1992": """@book{searle1992,
  author = {Searle, Shayle R. and Casella, George and McCulloch, Charles E.},
  title = {Variance Components},
  publisher = {Wiley},
  address = {New York},
  year = {1992}
}""",
    "satterthwaite1946": """@article{satterthwaite1946,
  author = {Satterthwaite, Franklin E.},
  title = {An Approximate Distribution of Estimates of Variance Components},
  journal = {Biometrics Bulletin},
  volume = {2},
  number = {6},
  pages = {110--114},
  year = {1946},
  doi = {10.2307/3002019}
}""",
    "daniels1999": """@article{daniels1999,
  author = {Daniels, Michael J.},
  title = {A Prior for the Variance in Hierarchical Models},
  journal = {Canadian Journal of Statistics},
  volume = {27},
  number = {3},
  pages = {567--578},
  year = {1999},
  doi = {10.2307/3316112}
}""",
    "smyth2004": """@article{smyth2004,
  author = {Smyth, Gordon K.},
  title = {Linear Models and Empirical {Bayes} Methods for Assessing Differential Expression in Microarray Experiments},
  journal = {Statistical Applications in Genetics and Molecular Biology},
  volume = {3},
  number = {1},
  year = {2004},
  note = {Article 3},
  doi = {10.2202/1544-6115.1027}
}""",
    "box2005": """@book{box2005,
  author = {Box, George E. P. and Hunter, J. Stuart and Hunter, William G.},
  title = {Statistics for Experimenters: Design, Innovation, and Discovery},
  edition = {2},
  publisher = {Wiley},
  year = {2005}
}""",
    "strassburger2008": """@article{strassburger2008,
  author = {Strassburger, Klaus and Bretz, Frank},
  title = {Compatible Simultaneous Lower Confidence Bounds for the {Holm} Procedure and Other {Bonferroni}-Based Closed Tests},
  journal = {Statistics in Medicine},
  volume = {27},
  pages = {4914--4927},
  year = {2008}
}""",
    "bonett2012": """@article{bonett2012,
  author = {Bonett, Douglas G. and Price, Robert M.},
  title = {Adjusted {Wald} Confidence Interval for a Difference of Binomial Proportions Based on Paired Data},
  journal = {Journal of Educational and Behavioral Statistics},
  volume = {37},
  number = {4},
  pages = {479--488},
  year = {2012},
  doi = {10.3102/1076998611411915}
}""",
    "nadeau2003": """@article{nadeau2003,
  author = {Nadeau, Claude and Bengio, Yoshua},
  title = {Inference for the Generalization Error},
  journal = {Machine Learning},
  volume = {52},
  number = {3},
  pages = {239--281},
  year = {2003},
  doi = {10.1023/A:1024068626366}
}""",
    "guo2017": """@inproceedings{guo2017,
  author = {Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  title = {On Calibration of Modern Neural Networks},
  booktitle = {Proceedings of the 34th International Conference on Machine Learning},
  series = {Proceedings of Machine Learning Research},
  volume = {70},
  pages = {1321--1330},
  year = {2017}
}""",
}
_CITED = re.compile(r"(?<!\\)@([a-z]+\d{4})")


def methods(findings: Findings) -> str:
    """How the study was done: paragraphs of Markdown in the past tense, with pandoc's citations of ``references_bib``."""
    paragraphs = (_design(findings), _estimates(findings), _downstream(findings), _proof(findings), _record(findings))
    return "\n\n".join(" ".join(sentences) for sentences in paragraphs if sentences) + "\n"


def references_bib(findings: Findings) -> str:
    """What ``methods`` cites, as BibTeX, in the order of its years."""
    cited = set(_CITED.findall(methods(findings)))
    return "\n\n".join(entry for key, entry in REFERENCES.items() if key in cited) + "\n"


def _design(f: Findings) -> list[str]:
    network = f" The reference trained {mark(f.model)} for {counted(f.epochs, 'epoch')}." if f.model else ""
    cited = " [@box2005]" if f.design == "factorial" else ""
    edits = "; ".join(mark(arm.edits) for arm in f.arms[1:] if arm.edits)
    independent = f" in {counted(f.groups, 'independent group')}" if f.groups != f.images else ""
    said = [
        (
            f"On the data set {mark(f.name)} ({counted(len(f.classes), 'class', 'classes')}) we compared "
            f"{counted(len(f.arms), 'training recipe')}, a reference and edits of it (design: {mark(f.design)}{cited})."
            f"{network}"
        ),
        f"Every recipe was trained with the same {counted(len(f.seeds), 'seed')} ({', '.join(map(str, f.seeds))}).",
        f"The recipes were judged on {counted(f.images, 'image')}{independent}: {mark(f.judges)}.",
    ]
    if edits:
        said.insert(1, f"The edits were: {edits}.")
    if f.on_test:
        said.append("The recipes were compared on the test images themselves, so the best of them looks better than it is.")
    elif f.plan:
        said.append("The images that judged a training had no part in it: none chose its epoch or fitted its parameters.")
    return said


def _estimates(f: Findings) -> list[str]:
    family = [effect for effect in f.effects if effect.declared]
    if not family:
        return []
    said = [
        (
            "The first endpoint was accuracy; the second was the log-loss after temperature scaling [@guo2017], at "
            "temperatures fitted to other judged images."
        ),
        (
            "Effects are contrasts between recipes, paired by seed and image; "
            f"{counted(len(family), 'contrast')} {'was' if len(family) == 1 else 'were'} declared in advance."
        ),
        (
            "Their standard errors speak of new images from the same source and of new seeds: the cluster-robust variance over "
            "independent images [@liang1986], and what seeds add to it, from variance components [@searle1992] whose share was "
            "pooled over the contrasts and moderated [@smyth2004], a tenth of it being common to all seeds [@nadeau2003]; the "
            "degrees of freedom of the sum are Satterthwaite's [@satterthwaite1946]."
        ),
        "To each difference of shares two images were added that one side or the other got right [@bonett2012].",
        (
            "p-values were adjusted by Holm's method [@holm1979] at a family-wise level of 5 %, and intervals are simultaneous "
            "and agree with it [@strassburger2008]."
        ),
        (
            "A difference was called equivalent to none if two one-sided tests placed it within "
            f"±{number(100 * f.delta)} points."
        ),
    ]
    looks = dict(f.decided).get("looks", "none")
    if looks != "none":
        said.append(f"Interim analyses spent {mark(looks)}.")
    if any(effect.expected is not None for effect in family):
        said.append(
            "Expected gains and probabilities that a change helps are those of a hierarchical normal-normal model with uniform "
            f"shrinkage priors [@daniels1999]; what is expected before was {mark(f.prior)}."
        )
    return said


def _downstream(f: Findings) -> list[str]:
    said = []
    for one in f.downstream:
        images, trainings = counted(one.images, f"{one.split} image"), counted(one.trainings, "training")
        said.append(
            f"Every network was also fine-tuned for {mark(one.name)}, always in the same way, and judged by "
            f"{MEASURES[one.measure]} on {images}; those with equal weights shared one of {trainings}."
        )
    if said:
        said.append(
            "There the same contrasts were a family of their own for each data set, on what each image says of the measure by "
            "the infinitesimal jackknife [@efron1982]."
        )
    return said


PROVED = {"proved": "a gain is proved", "harms": "a loss is proved", "not proved": "neither a gain nor a loss is proved"}


def _proof(f: Findings) -> list[str]:
    if f.proof is None:
        return []
    seeds, images = counted(len(f.proof.seeds), "fresh seed"), counted(f.proof.images, "image")
    said = (
        "The recipe with the largest expected gain was then compared with the reference in one contrast, with "
        f"{seeds} on {images} that had chosen nothing, two-sided at a level of {number(100 * f.proof.level, 1)} %"
    )
    again = f", since it was recipe number {f.proof.number} that these images tested" if f.proof.number > 1 else ""
    gain = f"{points(f.proof.difference)} points ({span(f.proof.interval, points)})"
    return [f"{said}{again}. It differed by {gain}: {PROVED[f.proof.verdict]}."]


def _record(f: Findings) -> list[str]:
    said = []
    if f.plan:
        said.append(f"The plan was stored before the first training (hash {mark(f.plan)}).")
    if f.departures:
        said.append(f"We departed from it: {' '.join(map(mark, f.departures))}")
    elif f.plan:
        said.append("There were no departures from it.")
    for kind, times in Counter(failure.kind for failure in f.failures).items():
        how = "diverged, and counted with their last valid accuracy or that of a guess" if kind == "diverged" else "failed"
        said.append(f"{counted(times, 'training')} {how}{'' if kind == 'diverged' else f' ({mark(kind)})'}.")
    if f.environment:
        said.append(f"Software and machine: {', '.join(f'{mark(name)} {mark(value)}' for name, value in f.environment)}.")
    return said
