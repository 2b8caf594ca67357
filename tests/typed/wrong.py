"""What ``mypy --strict`` must find: a mistake on each line of the function, and none elsewhere."""

import trickbag as tb


def wrong() -> None:
    tb.check("photos", on_bad="never")
    tb.plan("photos", budgt="10m")
    tb.train("photos", seed="three")
    tb.study("photos", design="two-by-two")
    tb.plan_study("photos", workers=2)
    tb.load("run").predict("photo.jpg", on_bad="never")
    tb.evaluate("run")
    tb.finish("run").accuracy  # noqa: B018
    tb.compare("run", reference=1)
    tb.doctor(clear="yes")
    tb.MixUp(alhpa=0.4)
    tb.MixUp(alpha="little")
    tb.Mixup(alpha=0.4)
    tb.Ema().alpha  # noqa: B018
    tb.Recipe(epochs="three")
