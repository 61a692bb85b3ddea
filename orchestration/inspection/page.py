"""The inspection page: a small web application that scores the images people drop on it.

It answers only to its own pages: a request has to name one of its hosts, and one that sends something has to come from
a page of the same address. The page loads nothing from elsewhere.
"""

import base64
import io
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field

from llbnad.errors import printable
from llbnad.evaluation.heat_scale import css_gradient
from llbnad.inference.picture import heat_picture, scale_of
from llbnad.inference.request import Limits
from llbnad.model.threshold import Threshold
from orchestration.inspection.champion import Champion
from orchestration.inspection.inspector import predictions
from orchestration.inspection.scored_images import ScoredImages

TEMPLATE = Path(__file__).with_name("page.html")
NONCE = "__NONCE__"
JPEG_QUALITY = 85
MOST_IMAGES = 10_000  # of one request for labels
SAME_PAGE = {"same-origin", "none"}  # what a browser says of a request by the page itself, or typed by a person
SENDING = "application/octet-stream"  # a page of another address may not send this without asking first


class Labels(BaseModel):
    """A request for the labels of scored images at another false-positive rate."""

    fpr: float = Field(gt=0, lt=1)
    images: list[str] = Field(max_length=MOST_IMAGES)  # by the names that `/api/score` gave them


class Regions(BaseModel):
    """A request for the regions of a scored image at another false-positive rate."""

    fpr: float = Field(gt=0, lt=1)
    image: str


def inspection_app(
    champion: Champion, card: Callable[[], Mapping[str, str]], hosts: Sequence[str], limits: Limits
) -> FastAPI:
    """Return the application.

    Args:
        champion: the model that scores, followed by its owner.
        card: returns the model's card.
        hosts: values of the header `Host` that are answered, such as 127.0.0.1:5050, in lower case.
        limits: what may be sent.
    """
    app = FastAPI(title="LLBNAD inspection", docs_url=None, redoc_url=None, openapi_url=None)
    one_at_a_time = threading.Lock()
    images = ScoredImages()

    @app.middleware("http")
    async def own_pages_only(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        reason = refused(request, hosts)
        response = await answer(request) if reason is None else said(reason, 403)
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        response.headers.update(
            {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
             "X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin"}
        )  # fmt: skip
        return response

    @app.get("/")
    def page() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        text = TEMPLATE.read_text(encoding="utf-8").replace(NONCE, nonce)
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    @app.get("/api/card")
    def model_card() -> dict[str, Any]:
        threshold = champion.current.threshold
        return {
            "facts": dict(card()),
            "threshold": None if threshold is None else described(threshold),
            "scale": None if threshold is None or threshold.value <= 0 else bar_of(threshold),
            "most_bytes": limits.bytes,
        }

    @app.post("/api/labels")
    def labels(asked: Labels) -> JSONResponse:
        scorer = champion.current
        if scorer.threshold is None:
            return said(f"{scorer.name} has no threshold to move: train it with calibration.folds of at least 2", 400)
        threshold, found = scorer.threshold.at(asked.fpr), images.labels(asked.images, asked.fpr)
        return JSONResponse({"threshold": described(threshold), "model": scorer.name, "labels": found})

    @app.post("/api/regions")
    def regions(asked: Regions) -> dict[str, Any]:
        found = images.regions(asked.image, asked.fpr)
        return {"regions": None if found is None else [one.numbers() for one in found]}

    @app.post("/api/score")
    async def score(request: Request, name: str = "image") -> JSONResponse:
        if request.headers.get("content-type") != SENDING:
            return said(f"expected the bytes of one image as {SENDING}", 415)
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > limits.bytes:
                return said(f"{name} is larger than {limits.bytes} bytes, the most that is taken", 413)
        return JSONResponse(await run_in_threadpool(scored, name, bytes(content)))

    def scored(name: str, content: bytes) -> dict[str, Any]:
        scorer = champion.current
        with one_at_a_time:
            (found,) = predictions(scorer, [content])
            error = printable(found.error.replace(f"the image given as {len(content)} bytes", name))
            result: dict[str, Any] = {
                "name": name, "model": scorer.name, "score": found.score, "label": found.label, "error": error,
                "size": found.size, "picture": None, "image": None,
                "fpr": None if scorer.pixels is None else scorer.pixels.levels.target_fpr,  # of these regions
                "regions": None if found.regions is None else [one.numbers() for one in found.regions],
            }  # fmt: skip
            if not error:
                plain = replace(found, regions=None)  # the page draws them itself
                result["image"] = images.add(scorer, plain)
                picture = heat_picture(content, plain, scorer.threshold, scorer.predictor.model.window)
                stream = io.BytesIO()
                picture.save(stream, format="jpeg", quality=JPEG_QUALITY)
                result["picture"] = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
        return result

    return app


def refused(request: Request, hosts: Sequence[str]) -> str | None:
    """Return why a request is refused, or None if it comes from the application's own page or from a program."""
    host = request.headers.get("host", "").lower()
    if host not in hosts:  # a page elsewhere may have made its own name point to this machine
        return f"this page is not served as {host!r}: use {hosts[0]}, or start it with --allow-host"
    origin = request.headers.get("origin")
    if origin is not None and origin.lower() != f"{request.url.scheme}://{host}":
        return f"a page of {origin!r} may not use this one"
    if request.headers.get("sec-fetch-site", "none") not in SAME_PAGE and request.url.path != "/":
        return "a page of another address may not use this one"
    return None


def said(reason: str, status: int) -> JSONResponse:
    """Return an answer that says in one line what is wrong."""
    return JSONResponse({"error": " ".join(printable(reason).split())}, status)


def described(threshold: Threshold) -> dict[str, Any]:
    """Return a threshold as JSON values for the page."""
    return {
        "value": threshold.value,
        "fpr": threshold.target_fpr,
        "unsure": [threshold.unsure_low, threshold.unsure_high] if threshold.unsure else None,
        "text": threshold.describe(),
    }


def bar_of(threshold: Threshold) -> dict[str, Any]:
    """Return the colour scale of the pictures, for the bar on the page."""
    return {**scale_of([], threshold).shown(), "colours": css_gradient()}
