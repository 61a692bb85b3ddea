"""Screenshots of pages in Chromium."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pictures.demo import LeftOutError
from benchmarks.pictures.tiles import as_jpeg

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WIDTH, HEIGHT = 1400, 820  # of a screenshot, in pixels


def photograph(page: Path, work: Path, out: Path) -> None:
    """Write a screenshot of a page that needs no server.

    Raises:
        LeftOutError: there is no Chromium.
    """
    arguments = [*_arguments(WIDTH, HEIGHT, work), f"--screenshot={work / 'page.png'}"]
    subprocess.run([_chromium(), *arguments, page.resolve().as_uri()], check=True, capture_output=True, timeout=120)
    as_jpeg(work / "page.png", out)


@contextmanager
def driven(work: Path, width: int = WIDTH, height: int = HEIGHT) -> Iterator["Chrome"]:
    """Yield a Chromium that a program uses as a person would.

    Raises:
        LeftOutError: there is no Chromium, or what drives it is not installed.
    """
    chromium, driver = _chromium(), shutil.which("chromedriver")
    if driver is None or find_spec("selenium") is None:
        raise LeftOutError("a screenshot of a page in use needs chromium-driver (apt) and selenium (extra dev)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in _arguments(width, height, work):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        yield browser
    finally:
        browser.quit()


def _chromium() -> str:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise LeftOutError("a screenshot needs Chromium (apt install chromium)")
    return chromium


def _arguments(width: int, height: int, work: Path) -> list[str]:
    return ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}",
            "--disable-background-networking", "--no-first-run", "--disable-dev-shm-usage",
            f"--user-data-dir={work / 'profile'}"]  # fmt: skip
