"""Picture `inspection_page.jpg`: the page to drop images on, of the demo's detector, with four cells dropped."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from benchmarks.pictures.browser import driven
from benchmarks.pictures.demo import SCENARIO, Demo
from benchmarks.pictures.tiles import as_jpeg, evenly
from llbnad.inference.request import Limits
from orchestration.inspection.card import file_facts
from orchestration.inspection.champion import Champion, model_finder
from orchestration.inspection.page import inspection_app

WIDTH, HEIGHT = 1240, 1080
PATIENCE = 60  # seconds that the page has for the images


def draw(demo: Demo, out: Path) -> None:
    """Photograph the page with three defects, from the surest to a faint one, and a normal cell."""
    chosen = pd.concat([evenly(demo.tested(True).head(60), 3), evenly(demo.tested(False), 3).iloc[[1]]])
    paths = [path.resolve() for path in demo.paths(chosen)]
    model = demo.work / f"{SCENARIO}.safetensors"
    demo.model.save(model)
    with driven(demo.work, WIDTH, HEIGHT) as browser, _served(model) as address:
        browser.get(address)
        browser.find_element("id", "files").send_keys("\n".join(map(str, paths)))
        loaded = "return [...document.querySelectorAll('article img')].filter(one => one.naturalWidth > 0).length"
        _wait(lambda: browser.execute_script(loaded) == len(paths))
        browser.save_screenshot(str(demo.work / "inspection.png"))
    as_jpeg(demo.work / "inspection.png", out / "inspection_page.jpg")


@contextmanager
def _served(model: Path) -> Iterator[str]:
    """Serve the page of a model file, as `python -m orchestration page` does, and yield its address."""
    import uvicorn

    champion, hosts = Champion(model_finder(str(model))), list[str]()
    shown = champion.current.predictor.model
    app = inspection_app(champion, lambda: file_facts(champion.current.name, model, shown), hosts, Limits())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        _wait(lambda: server.started)
        hosts.append(f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
        yield f"http://{hosts[0]}/"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the inspection page was not ready within {PATIENCE} s")
        time.sleep(0.1)
