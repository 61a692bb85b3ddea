"""The inspection page in a real Chromium: an image is dropped, the slider changes its label, a bad file says why."""

import threading

import pytest

from llbnad.inference.predict import Predictor
from llbnad.inference.request import Limits
from orchestration.inspection.card import file_facts
from orchestration.inspection.champion import Champion, model_finder
from orchestration.inspection.page import inspection_app
from tests.browser.test_review_page import browser  # noqa: F401  a fixture
from tests.pipeline.conftest import wait_for

DROP = """
const [names, contents] = arguments, files = new DataTransfer();
names.forEach((name, place) => files.items.add(
  new File([Uint8Array.from(atob(contents[place]), one => one.charCodeAt(0))], name)));
document.getElementById("drop").dispatchEvent(
  new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
"""
SLIDE = """
const slider = document.getElementById("rate");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input", {bubbles: true}));
"""
PLACE = """
const image = arguments[0].querySelector("img").getBoundingClientRect();
const box = arguments[0].querySelector("rect").getBoundingClientRect();
return [(box.left - image.left) / image.width, (box.top - image.top) / image.height,
  box.width / image.width, box.height / image.height];
"""


@pytest.fixture
def served(calibrated):
    """The address of a model's page, and the model."""
    import uvicorn

    champion = Champion(model_finder(str(calibrated)))
    model = champion.current.predictor.model
    hosts: list[str] = []
    app = inspection_app(champion, lambda: file_facts("cells", calibrated, model), hosts, Limits())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert wait_for(lambda: server.started, 20)
    hosts.append(f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    yield f"http://{hosts[0]}/", model
    server.should_exit = True
    thread.join(10)


def test_an_image_is_dropped_and_the_slider_moves_label_and_regions(served, browser, few_cells):  # noqa: F811
    import base64

    address, model = served
    manifest, root = few_cells
    paths = [root / path for path in manifest["path"]]
    rate = 10**-0.3  # as the slider at its right end says
    own, wider = (
        Predictor(model).predict(paths, threshold, pixels)
        for threshold, pixels in (
            (model.threshold, model.pixel_threshold),
            (model.threshold.at(rate), model.pixel_threshold.at(rate)),
        )
    )
    (path, before, after), *_ = [
        (path, one, other)
        for path, one, other in zip(paths, own, wider, strict=True)
        if one.label != other.label and len(one.regions) != len(other.regions)
    ]
    browser.get(address)
    assert wait_for(lambda: "cells" in browser.find_element("id", "name").text, 10)
    assert "Detector" in browser.find_element("id", "facts").text
    contents = [path.read_bytes(), b"no image"]
    encoded = [base64.b64encode(content).decode() for content in contents]
    browser.execute_script(DROP, ["cell.png", "bad.png"], encoded)

    def articles():
        return {one.get_attribute("data-name"): one for one in browser.find_elements("css selector", "article")}

    assert wait_for(lambda: {"cell.png", "bad.png"} <= articles().keys(), 20)
    cell, bad = articles()["cell.png"], articles()["bad.png"]
    assert "bad.png" in bad.text and "not scored" in bad.text
    assert f"{before.score:.4f}"[:5] in cell.text
    picture = cell.find_element("css selector", "img")
    assert wait_for(lambda: browser.execute_script("return arguments[0].naturalWidth", picture) > 100, 10)
    assert cell.find_element("css selector", ".label").text == before.label

    def boxes():
        rects = cell.find_elements("css selector", "svg:not(.old) rect")
        return [tuple(int(one.get_attribute(name)) for name in ("x", "y", "width", "height")) for one in rects]

    assert boxes() == [region.box for region in before.regions]
    browser.execute_script(SLIDE, -0.3)
    assert wait_for(lambda: cell.find_element("css selector", ".label").text == after.label, 10)
    assert wait_for(lambda: boxes() == [region.box for region in after.regions], 10)
    largest = max(region.area for region in after.regions)
    assert f"largest of {largest} pixels" in cell.find_element("css selector", ".note").text
    shares = [side / length for side, length in zip(after.regions[0].box, 2 * after.size, strict=True)]
    assert browser.execute_script(PLACE, cell) == pytest.approx(shares, abs=0.02)  # the stroke is two pixels wide
    assert "50" in browser.find_element("id", "percent").text
    assert "for 50.12% false positives" in browser.find_element("id", "told").text
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [entry for entry in severe if "favicon" not in entry["message"]]
