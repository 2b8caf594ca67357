"""What can be asked: the page, predictions, where a network looks, which runs there are."""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache, partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from trickbag.ground.events import Note, Tell
from trickbag.ground.text import brief, clipped, show
from trickbag.report.page import environment
from trickbag.serving.desk import Desk, Wish
from trickbag.serving.guard import answer, refusal
from trickbag.serving.limits import Limits, Refused
from trickbag.serving.schema import FILES, REFUSALS, Explained, Predicted, Served
from trickbag.serving.uploads import uploads
from trickbag.transfers.predictor import SURE

Wanted = Annotated[str, Query(description="The name of the run, as /runs gives it; by default the first.")]


def application(desks: Sequence[Desk[Any]], limits: Limits, threshold: float | None, tell: Tell) -> FastAPI:
    """The application, without the guard before it."""
    app = FastAPI(
        title="trickbag",
        docs_url=None,
        redoc_url=None,
        responses=REFUSALS,
        redirect_slashes=False,
        dependencies=[Depends(_check_options)],
    )
    by_name = {desk.name: desk for desk in desks}
    usual = SURE if any(desk.task == "detection" for desk in desks) else 0.0

    def desk_of(run: str) -> Desk[Any]:
        if run and run not in by_name:
            raise Refused(404, f"There is no run {clipped(show(run))}. There are: {', '.join(by_name)}.")
        return by_name[run] if run else desks[0]

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        text, policy = _page()
        return Response(text, headers={"content-security-policy": policy}, media_type="text/html")

    @app.get("/healthz", responses={200: {"content": {"application/json": {"example": {"status": "ok"}}}}})
    async def healthz() -> Response:
        """Whether the server answers."""
        return answer(200, {"status": "ok"})

    @app.get("/runs", responses={200: {"model": Served}})
    async def runs() -> Response:
        """The runs that are served, with their classes, and the limits."""
        known = [desk.card() for desk in desks]
        return answer(200, {"runs": known, "threshold": usual if threshold is None else threshold, "limits": limits._asdict()})

    @app.post("/predict", responses={200: {"model": Predicted}}, openapi_extra=FILES)
    async def predict(
        request: Request,
        run: Wanted = "",
        top: Annotated[int, Query(ge=1, le=100_000, description="Classes of each image.")] = 5,
        threshold: Annotated[
            float | None,
            Query(
                ge=0, le=1, description="Call a prediction unsure whose probability is below, leave out boxes whose score is."
            ),
        ] = threshold,
        picture: Annotated[bool, Query(description="Draw boxes and regions: a JPEG in a data: address.")] = False,
    ) -> Response:
        """Classify images, or find boxes or regions in them: several files of a form, or one image as the body."""
        desk = desk_of(run)
        images = await desk.predict(await uploads(request, limits), Wish(top, threshold, picture))
        some = any("error" not in image for image in images)
        failed = {} if some else {"error": images[0]["error"]}
        return answer(200 if some else 422, {"run": desk.name, "images": images, **failed})

    @app.post("/explain", responses={200: {"model": Explained}}, openapi_extra=FILES)
    async def explain(
        request: Request,
        run: Wanted = "",
        class_: Annotated[str, Query(alias="class", description="The class to look for; by default the predicted one.")] = "",
    ) -> Response:
        """Where the network sees a class in an image (Grad-CAM)."""
        desk = desk_of(run)
        first, *more = await uploads(request, limits)
        if more:
            raise Refused(413, "One request explains one image. Send the others in requests of their own.")
        return answer(200, {"run": desk.name, **await desk.explain(first, class_)})

    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _astray)
    app.add_exception_handler(RequestValidationError, _wrong)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, partial(_failed, tell))
    return app


def _check_options(request: Request) -> None:
    """Raise Refused where an address is asked with an option that it does not have: mistyped, it would do nothing."""
    route: APIRoute = request.scope["route"]
    options = [option.alias for option in route.dependant.query_params]
    others = [name for name in request.query_params if name not in options]
    if others and route.include_in_schema:  # the page may be asked for with anything
        known = f"Its options are {', '.join(options)}" if options else "It has none"
        raise Refused(422, f"{route.path} has no option {brief(show(others[0]), 40)}. {known}.")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error)


async def _gone(_: Request, __: Exception) -> Response:
    return answer(400, {"error": "The request broke off."})


async def _astray(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "There is nothing at this address", 405: f"{request.method} is not what this address takes"}
    return answer(error.status_code, {"error": f"{said.get(error.status_code, error.detail)}. See /openapi.json."})


async def _wrong(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    reason = first["msg"].rstrip(".")
    return answer(422, {"error": f"{first['loc'][-1]}: {reason[0].lower()}{reason[1:]}."})


async def _failed(tell: Tell, _: Request, error: Exception) -> Response:
    tell(Note(f"a request failed: {type(error).__name__}: {clipped(str(error), 300)}"))
    return answer(500, {"error": "The server failed at this request. What went wrong is on its screen."})


@cache
def _page() -> tuple[str, str]:
    """The page, and the policy under which a browser runs its own script and style and nothing else."""
    text = environment().get_template("serve.html").render()

    def digest(tag: str) -> str:
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert inside
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()}'"

    own = f"script-src {digest('script')}; style-src {digest('style')}; connect-src 'self'; img-src blob: data:"
    return text, f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
