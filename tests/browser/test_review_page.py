"""The review page in a real Chromium: sort, judge by keyboard, export. The exported verdicts change the kept images."""

import contextlib
import re
import shutil
from dataclasses import replace

import pytest

from llbnad.config import EncoderConfig, NoNoise
from llbnad.data.contaminate import contaminate
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.features.image_vectors import image_vectors
from llbnad.features.store import FeatureStore
from llbnad.policies.fraction import Fraction
from llbnad.purification.verdicts import read_verdicts
from llbnad.review.decision import decided
from llbnad.review.page import GRID, build_suspects, choose_suspects, near_duplicates, review_page
from llbnad.scenario import ScenarioSettings
from llbnad.two_stage import run_two_stage

SETTINGS = ScenarioSettings(
    encoder=EncoderConfig(input_size=64),
    detector=PatchcoreConfig(memory_size=512),
    subsets=2,
    selection=Fraction(keep=0.8),
    comparators=(),
    suspects=4,
)
SUSPECTS = 16  # at most


@pytest.fixture(scope="module")
def line(few_cells, tmp_path_factory):
    """An unlabelled line of 20 cells that went through both stages."""
    manifest, root = few_cells
    noisy = contaminate(manifest.assign(anomaly_class=None), NoNoise(), 0)
    store = FeatureStore(tmp_path_factory.mktemp("cache"), SETTINGS.encoder, noisy, root)
    return noisy, store, root, run_two_stage(noisy, store, root, SETTINGS)


@pytest.fixture(scope="module")
def write_page(line):
    noisy, store, root, result = line

    def write(path, verdicts, by_evidence=True):
        purified = replace(result.purified, by_evidence=by_evidence)
        reasons = choose_suspects(result.scores, purified, verdicts, SUSPECTS)
        ids = sorted(reasons.index)
        groups = near_duplicates(ids, image_vectors(store, ids, GRID, "alike"))
        groups |= dict.fromkeys(result.scores["score"].nlargest(2).index, 99)  # a group, whatever the encoder says
        decision = decided(result.scores["score"], purified)
        suspects = build_suspects(noisy, result.scores, reasons, decision, groups, result.heat, root)
        page = review_page("line", suspects, verdicts, decision, decision.scale(result.heat))
        path.write_text(page, encoding="utf-8")
        return suspects

    return write


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium or chromedriver is not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                     "--no-first-run", "--disable-dev-shm-usage", "--window-size=1400,900",
                     f"--user-data-dir={tmp_path / 'profile'}"):  # fmt: skip
        options.add_argument(argument)
    downloads = {"download.default_directory": str(tmp_path / "downloads"), "download.prompt_for_download": False}
    options.add_experimental_option("prefs", downloads)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield started
    started.quit()


class Page:
    """The page as a person sees and uses it."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def text(self, selector):
        return self.all(selector)[0].text

    def click(self, selector):
        self.all(selector)[0].click()

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def press_with_shift(self, key):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        ActionChains(self.browser).key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT).perform()

    def order(self):
        return [row.get_attribute("data-id") for row in self.all("tbody tr")]

    def selected(self):
        return self.all("tbody tr[aria-selected=true]")[0].get_attribute("data-id")

    def verdict(self, image_id):
        return self.text(f"tr[data-id='{image_id}'] .verdict")

    def sort(self, name):
        (button,) = [one for one in self.all("thead button") if one.text == name]
        button.click()

    def choose(self, name):
        (option,) = [one for one in self.all("#show option") if one.text.startswith(f"{name} (")]
        option.click()

    def shown(self):
        return [row.get_attribute("data-id") for row in self.all("tbody tr") if row.is_displayed()]

    def wait(self, condition):
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.browser, 20).until(lambda _: condition())

    def export(self, downloads):
        self.click("#export")
        self.wait((downloads / "line.csv").is_file)
        return downloads / "line.csv"


def test_nothing_is_fetched_from_anywhere(write_page, tmp_path):
    write_page(tmp_path / "page.html", {})
    text = (tmp_path / "page.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)[^"']+|url\(|@import|https?://""", text)
    assert "default-src 'none'" in text


def test_what_a_fixed_share_leaves_out_is_not_called_rejected(write_page, browser, tmp_path):
    suspects = write_page(tmp_path / "page.html", {}, by_evidence=False)
    page = Page(browser, tmp_path / "page.html")
    away = next(one.image_id for one in suspects if one.status == "rejected")
    chip = f"tr[data-id='{away}'] .decision .chip"
    page.click(f"tr[data-id='{away}']")
    assert page.text(chip) == "left out by the fixed share" and "left out in the last run, as in" in page.text(
        "#details"
    )
    assert not {"rejected", "suspects"} & {*browser.execute_script("return document.body.innerText").split()}
    page.press("n")
    assert page.text(chip) == "left out by the fixed share, kept by you"
    assert page.text(f"tr[data-id='{away}'] .waiting") == "left out in the last run, kept in the next"
    page.click(f"tr[data-id='{away}']")
    page.press("d")
    assert page.text(chip) == "left out by the fixed share, rejected by you" and not page.all(f"{chip} + .waiting")


def test_people_judge_by_keyboard_and_the_next_run_obeys(write_page, line, browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    noisy, store, root, _ = line
    suspects = write_page(tmp_path / "page.html", {})
    page = Page(browser, tmp_path / "page.html")
    assert page.order() == [one.image_id for one in suspects]
    first, second, *_ = page.order()
    assert {first, second} == {one.image_id for one in suspects if one.group == 99}  # near-duplicates stand together
    assert page.text("#count") == f"0 of {len(suspects)} judged"

    page.sort("score")
    by_score = sorted(suspects, key=lambda one: -one.score)
    assert page.order() == [one.image_id for one in by_score]
    assert page.all("th[aria-sort=descending]")[0].text == "score"
    page.sort("score")
    assert page.order() == [one.image_id for one in by_score[::-1]]
    page.sort("spread")
    assert page.order()[0] == max(suspects, key=lambda one: one.spread).image_id
    page.sort("score")

    # a rejected image is called normal, a kept one a defect, another kept one is left out
    rejected = next(one.image_id for one in by_score if one.status == "rejected")
    kept = [one.image_id for one in by_score if one.status == "kept"]
    page.click(f"tr[data-id='{rejected}']")
    page.press("n")
    assert page.verdict(rejected) == "normal"
    assert page.selected() == page.order()[page.order().index(rejected) + 1]  # judged, and on to the next
    page.click(f"tr[data-id='{kept[0]}']")
    page.press("d")
    page.press(Keys.ARROW_UP, "e")  # the wrong one
    assert page.verdict(kept[0]) == "exclude"
    page.press("u")
    assert (page.verdict(kept[0]), page.selected()) == ("defect", kept[0])
    page.click(f"tr[data-id='{kept[1]}']")
    page.press("e")
    assert page.text("#count") == f"3 of {len(suspects)} judged"
    assert browser.switch_to.active_element.get_attribute("data-id") == page.selected()  # focus follows
    label = page.all(f"tr[data-id='{kept[1]}']")[0].get_attribute("aria-label")
    assert label.endswith("exclude")

    assert page.text(f"tr[data-id='{rejected}'] .decision .chip") == "rejected by policy, kept by you"
    assert page.text(f"tr[data-id='{kept[0]}'] .decision .chip") == "kept by policy, rejected by you"
    assert page.text(f"tr[data-id='{kept[0]}'] .waiting") == "kept in the last run, rejected in the next"
    assert "1 normal · 1 defect · 1 exclude · 3 change at the next run" in page.text("#counts")
    names = noisy.set_index("image_id")["path"].map(lambda path: path.rpartition("/")[2])
    assert page.text(f"tr[data-id='{rejected}'] .picture") == names[rejected]
    page.choose("judged")
    assert set(page.shown()) == {rejected, *kept[:2]}
    page.choose("all")
    page.click(f"tr[data-id='{kept[1]}']")
    assert page.text("#scale").startswith("≤ ") and "Heat map: calm below the" in page.text("#scale")

    before = page.all("#large")[0].get_attribute("src")
    page.press("h")
    assert page.all("#large")[0].get_attribute("src") != before
    assert page.all("#heat")[0].get_attribute("aria-pressed") == "true"

    verdicts = read_verdicts(page.export(tmp_path / "downloads"))
    assert verdicts == {rejected: "normal", kept[0]: "defect", kept[1]: "exclude"}

    again = Page(browser, tmp_path / "page.html")  # exported, and not in the review file yet
    assert again.verdict(rejected) == "normal" and "3 verdicts are back: they were exported" in again.text("#notice")
    again.click("#restart")
    assert again.verdict(rejected) == "–" and again.text("#count").startswith("0 of")
    write_page(tmp_path / "page.html", verdicts)
    assert not Page(browser, tmp_path / "page.html").all("#notice")[0].is_displayed()  # the file has what was exported
    again = run_two_stage(noisy, store, root, SETTINGS, verdicts)
    assert rejected in again.purified.kept and kept[0] in again.purified.rejected
    assert kept[1] not in again.purified.kept + again.purified.rejected
    assert kept[1] not in again.evaluation.scores["llbnad"].image_ids
    assert again.evaluation.metrics()["n_labelled"] == 2
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_known_verdicts_are_chosen_beforehand_and_none_is_lost(write_page, browser, tmp_path):
    suspects = write_page(tmp_path / "fresh.html", {})
    elsewhere = "f" * 64
    known = {suspects[2].image_id: "defect", elsewhere: "normal"}
    shown = write_page(tmp_path / "page.html", known)  # those judged before come on top of the limit
    page = Page(browser, tmp_path / "page.html")
    assert page.verdict(suspects[2].image_id) == "defect"
    assert page.text("#count") == f"1 of {len(shown)} judged"
    alike = [one.image_id for one in suspects if one.group == 99]
    page.click(f"tr[data-id='{alike[0]}']")
    page.press_with_shift("e")
    assert [page.verdict(image_id) for image_id in alike] == ["exclude", "exclude"]
    page.click("#undo")
    assert [page.verdict(image_id) for image_id in alike] == ["–", "–"]

    (tmp_path / "own.csv").write_text(f"image_id,verdict\r\n{alike[1]},normal\r\n")
    page.all("#load")[0].send_keys(str(tmp_path / "own.csv"))
    page.wait(lambda: page.verdict(alike[1]) == "normal")  # the page reads the file in its own time
    assert read_verdicts(page.export(tmp_path / "downloads")) == {**known, alike[1]: "normal"}


def test_verdicts_that_were_not_exported_are_back_after_a_crash(write_page, browser, tmp_path):
    suspects = write_page(tmp_path / "page.html", {})
    page = Page(browser, tmp_path / "page.html")
    page.press("d")
    browser.get("about:blank")
    _leave(browser)
    page = Page(browser, tmp_path / "page.html")
    assert page.verdict(suspects[0].image_id) == "defect"
    assert "are back" in page.text("#notice")


def _leave(browser):
    """Say yes if the page asks whether to leave with verdicts that are not exported."""
    from selenium.common.exceptions import NoAlertPresentException

    with contextlib.suppress(NoAlertPresentException):
        browser.switch_to.alert.accept()
