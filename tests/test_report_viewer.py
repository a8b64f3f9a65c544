"""The page in a browser: headless Chromium, without a network."""

import json
import shutil
import time

import pytest
from report_data import make_item

from bundle.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --window-size=1300,900"
PLANES = ("axial", "coronal", "sagittal")
# mean grey of the left and the right half of a view, and a number that changes with its picture
LOOK = """
const view = document.querySelector(`[data-plane=${arguments[0]}] [data-side=${arguments[1]}]`);
const canvas = view.querySelector("." + arguments[2]);
const {data, width, height} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
const half = [0, 0];
let hash = 0, colour = 0;
for (let i = 0; i < data.length; i += 4) {
  half[(i / 4) % width < width / 2 ? 0 : 1] += data[i] > 235 ? 1 : 0;
  colour += Math.abs(data[i] - data[i + 2]) > 60 && data[i + 3] > 60 ? 1 : 0;
  hash = (hash * 31 + data[i] + 7 * data[i + 3]) % 1000000007;
}
return {left: half[0], right: half[1], hash, colour: colour / (width * height)};
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A page of contrast `input` with all maps, loaded."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver here; see .ci/run")
    folder = tmp_path_factory.mktemp("page with blanks")
    item, pred, sidecar = make_item(folder / "scan.nii.gz")
    write_report(folder / "scan_report.html", item, pred, sidecar)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver, folder / "scan_report.html"
    driver.quit()


@pytest.fixture
def page(browser):
    """The page as it opens, its pictures drawn."""
    driver, path = browser
    driver.get(path.as_uri())
    _wait(lambda: driver.execute_script("return document.getElementById('viewer').dataset.ready"))
    _wait(lambda: _look(driver)["hash"] > 0)
    return driver


def _wait(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.05)


def _look(driver, plane="axial", side="after", canvas="image"):
    return driver.execute_script(LOOK, plane, side, canvas)


def _changed(driver, action, **where):
    before = _look(driver, **where)
    action()
    _wait(lambda: _look(driver, **where)["hash"] != before["hash"])
    return before, _look(driver, **where)


def _set(driver, selector, value):
    code = "const e = document.querySelector(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'))"
    driver.execute_script(code, selector, value)


def _press(driver, key, selector="body"):
    driver.find_element("css selector", selector).send_keys(key)


def test_it_opens_without_complaint_and_fetches_nothing(page):
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    urls = [
        one["request"]["url"] for one in sent if one["documentURL"].startswith("file:")
    ]  # not the browser's own pages
    assert urls and all(url.split(":")[0] in ("file", "data") for url in urls)
    assert (
        page.execute_script("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:'))")
        == []
    )
    assert page.title == "scan_report.html"
    assert "something is <odd>" in page.find_element("css selector", ".warnings").text


@pytest.mark.parametrize("plane", PLANES)
def test_a_slice_slider_changes_its_plane_and_nothing_else(page, plane):
    slider = f"[data-plane={plane}] .slice"
    others = [_look(page, plane=p)["hash"] for p in PLANES if p != plane]
    _changed(page, lambda: _set(page, slider, 20), plane=plane)
    assert [_look(page, plane=p)["hash"] for p in PLANES if p != plane] == others
    assert page.find_element("css selector", f"[data-plane={plane}] output").text.startswith("21 / ")


def test_wiping_and_the_space_bar_go_from_result_to_input(page):
    _, result = _changed(page, lambda: _set(page, "#split", 0))
    _, given = _changed(page, lambda: _set(page, "#split", 100))
    assert result["hash"] != given["hash"]
    _changed(page, lambda: _press(page, "r"))
    assert _look(page)["hash"] == result["hash"]
    page.execute_script("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: ' ', bubbles: true}))")
    _wait(lambda: _look(page)["hash"] == given["hash"])
    page.execute_script("document.body.dispatchEvent(new KeyboardEvent('keyup', {key: ' ', bubbles: true}))")
    _wait(lambda: _look(page)["hash"] == result["hash"])


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_the_patient_s_left_is_where_the_labels_say(page, plane):
    spot = {"axial": ("[data-plane=axial] .slice", 0.5), "coronal": ("[data-plane=coronal] .slice", 0.48)}[plane]
    last = int(page.find_element("css selector", spot[0]).get_attribute("max"))
    _press(page, "r")
    _set(page, spot[0], round(spot[1] * last))
    east = f"[data-plane={plane}] [data-side=after] .east"
    _wait(lambda: _look(page, plane=plane)["right"] > 3 * _look(page, plane=plane)["left"])
    assert page.find_element("css selector", east).text == "L"
    page.execute_script("document.getElementById('neurological').click()")
    _wait(lambda: _look(page, plane=plane)["left"] > 3 * _look(page, plane=plane)["right"])
    assert page.find_element("css selector", east).text == "R"


def test_overlays_colour_the_result_and_come_with_their_legend(page):
    _set(page, "#split", 0)
    for key, words in (("u", "standard deviation"), ("t", "WM"), ("d", "Input minus degraded result")):
        _changed(page, lambda key=key: _press(page, key), canvas="over")
        assert words in page.find_element("css selector", "#legend").text
    _changed(page, lambda: _press(page, "u"), canvas="over")
    assert _look(page, canvas="over")["colour"] > 0.1
    _changed(page, lambda: _press(page, "n"), canvas="over")
    assert _look(page, canvas="over")["colour"] < 0.02 and page.find_element("css selector", "#legend").text == ""


def test_the_keyboard_moves_the_crosshair_of_all_planes(page):
    view = "[data-plane=axial] [data-side=after]"
    _changed(page, lambda: _press(page, "\ue012", view), plane="sagittal")  # arrow left
    _changed(page, lambda: _press(page, "\ue00e", view))  # page up
    _changed(page, lambda: _press(page, "+"), plane="coronal")


def test_a_click_moves_the_other_planes(page):
    from selenium.webdriver import ActionChains

    view = page.find_element("css selector", "[data-plane=axial] [data-side=after]")
    click = ActionChains(page).move_to_element_with_offset(view, 40, 60).click()
    _changed(page, click.perform, plane="sagittal")


@pytest.mark.parametrize("width", [1300, 600])
def test_side_by_side_shows_both_within_the_window(page, width):
    page.set_window_size(width, 900)
    _press(page, "s")
    both = [f"[data-plane=axial] [data-side={side}]" for side in ("before", "after")]
    _wait(lambda: all(page.find_element("css selector", one).is_displayed() for one in both))
    _wait(lambda: _look(page, side="before")["hash"] not in (0, _look(page)["hash"]))
    assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    page.set_window_size(1300, 900)
