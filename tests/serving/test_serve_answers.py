"""What the server answers is what Python says of the same images."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served import Served

import trickbag as tb

PHOTOS = list[tuple[str, bytes]]


@pytest.mark.parametrize("name", ["one", "two"])
def test_predictions_are_those_of_python(server: Served, place: Path, photos: PHOTOS, name: str) -> None:
    found = server.send(f"/predict?run={name}&top=2&threshold=0.6", *photos)
    assert found.status == 200
    assert found.json["run"] == name
    expected = list(tb.load(place / name).predict([content for _, content in photos], 2, threshold=0.6))
    for image, (sent, _), prediction in zip(found.json["images"], photos, expected, strict=True):
        assert image["name"] == sent
        assert image["unsure"] == prediction.unsure
        assert [pair["class"] for pair in image["predictions"]] == list(prediction.classes)
        said = [pair["probability"] for pair in image["predictions"]]
        assert said == pytest.approx(prediction.probabilities, abs=1e-5)


def test_one_image_is_the_body_itself(server: Served, photos: PHOTOS) -> None:
    for kind in ("image/png", "application/octet-stream", "IMAGE/jpeg; q=1"):
        found = server.ask("POST", "/predict", photos[0][1], Content_Type=kind)
        assert found.status == 200
        assert found.json["run"] == "one"
        assert len(found.json["images"][0]["predictions"]) == 3
    by_form = server.send("/predict", photos[0]).json["images"][0]
    assert by_form["predictions"] == found.json["images"][0]["predictions"]
    assert by_form["unsure"] == (by_form["predictions"][0]["probability"] < 0.5), "the threshold of the command"


def test_a_bad_image_takes_no_other_answer_away(server: Served, photos: PHOTOS) -> None:
    bad = ("bad.png", photos[0][1][:80])
    found = server.send("/predict", photos[0], bad, ("note.txt", b"hello"), photos[1])
    assert found.status == 200
    assert ["predictions" in image for image in found.json["images"]] == [True, False, False, True]
    assert found.json["images"][1] == {"name": "bad.png", "error": "bad.png cannot be read: truncated."}
    assert found.json["images"][2]["error"] == "note.txt cannot be read: not an image."
    alone = server.send("/predict", bad)
    assert alone.status == 422
    assert alone.json["error"] == alone.json["images"][0]["error"]


def test_names_are_shown_as_they_are_but_for_what_could_steer_a_reader(server: Served, photos: PHOTOS) -> None:
    told = server.send("/predict", *((name, photos[0][1]) for name in ("../猫 (1).png", "a\x1b[31m\u202egpj.exe", "n" * 3000)))
    plain, steering, long = (image["name"] for image in told.json["images"])
    assert (plain, steering) == ("../猫 (1).png", r"a\x1b[31m\u202egpj.exe")
    assert len(long) == 201


def test_an_explanation_is_that_of_python(server: Served, place: Path, photos: PHOTOS) -> None:
    found = server.send("/explain?run=one&class=b", photos[0])
    assert found.status == 200
    (expected,) = tb.load(place / "one").explain(photos[0][1], "b")
    assert found.json["class"] == "b"
    assert found.json["probability"] == pytest.approx(expected.probability, abs=1e-5)
    with Image.open(io.BytesIO(base64.b64decode(found.json["picture"].removeprefix("data:image/png;base64,")))) as picture:
        shown = np.asarray(picture).astype(int)
    assert shown.shape == (*expected.map.shape, 3)
    grey, coloured = expected.map.numpy() < 0.05, expected.map.numpy() > 0.9
    spread = np.ptp(shown, axis=2)
    assert spread[coloured].min() > spread[grey].max(initial=0), "colour is where the map is high"
    assert server.send("/explain?class=zebra", photos[0]).status == 422
    assert server.send("/explain", *photos[:2]).status == 413


def test_the_runs_and_the_limits_are_told(server: Served, place: Path) -> None:
    told = server.ask("GET", "/runs").json
    assert [run["name"] for run in told["runs"]] == ["one", "two"]
    facts = {"task": "classification", "model": "cifar_resnet8", "pixels": 16, "classes": ["a", "b", "猫 <b>"]}
    assert told["runs"][0] == {"name": "one", **facts}
    assert told["threshold"] == 0.5
    assert told["limits"]["images"] == 64
    assert str(place) not in server.ask("GET", "/runs").body.decode()


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/predict?treshold=0.5", "/predict has no option 'treshold'. Its options are run, top, threshold, picture."),
        ("POST", "/predict?top=1&=", "/predict has no option ''. Its options are run, top, threshold, picture."),
        ("POST", "/explain?klass=a%0a", "/explain has no option 'klass'. Its options are run, class."),
        ("POST", "/explain?top=1", "/explain has no option 'top'. Its options are run, class."),
        ("GET", "/runs?x=1", "/runs has no option 'x'. It has none."),
    ],
)
def test_an_option_that_there_is_not_is_told(server: Served, photos: PHOTOS, method: str, path: str, said: str) -> None:
    found = server.send(path, photos[0]) if method == "POST" else server.ask(method, path)
    assert (found.status, found.json) == (422, {"error": said})
    assert server.ask("GET", "/?from=elsewhere").status == 200


def test_another_method_is_told(server: Served) -> None:
    for method, path in (("GET", "/predict"), ("PUT", "/explain"), ("POST", "/runs")):
        found = server.ask(method, path)
        assert (found.status, found.json) == (405, {"error": f"{method} is not what this address takes. See /openapi.json."})


def test_the_description_says_what_is_answered(server: Served, photos: PHOTOS) -> None:
    told = server.ask("GET", "/openapi.json").json
    assert {*told["paths"]} == {"/healthz", "/runs", "/predict", "/explain"}
    predict = told["paths"]["/predict"]["post"]
    assert {"multipart/form-data", "image/*", "application/octet-stream"} == {*predict["requestBody"]["content"]}
    assert {"408", "413", "415", "421", "422", "503"} <= {*predict["responses"]}
    for path, found in (
        ("/predict", server.send("/predict", photos[0], ("no", b"no"))),
        ("/explain", server.send("/explain", photos[0])),
        ("/runs", server.ask("GET", "/runs")),
    ):
        (verb,) = told["paths"][path].values()
        said = verb["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        fits(found.json, said, told["components"]["schemas"])
    for address in ("/docs", "/redoc"):
        assert server.ask("GET", address).status == 404, "they would load scripts from elsewhere"


def fits(value: Any, reference: str, schemas: dict[str, Any]) -> None:
    """Assert that a value has the keys of a schema, and no others, all the way down."""
    schema = schemas[reference.rpartition("/")[2]]
    assert {*schema.get("required", ())} <= {*value} <= {*schema["properties"]}
    for key, inner in value.items():
        items = [schema["properties"][key], *schema["properties"][key].get("anyOf", ())]
        for of in [one["items"]["$ref"] for one in items if "$ref" in one.get("items", {})]:
            for each in inner:
                fits(each, of, schemas)


def test_health(server: Served) -> None:
    found = server.ask("GET", "/healthz")
    assert (found.status, found.json) == (200, {"status": "ok"})
