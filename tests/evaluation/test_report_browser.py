"""The report in a real browser: playback, tables, chart, blind test, shortcuts and layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import soundfile

from codectool.evaluation.report.page import write_page
from codectool.evaluation.results import Clip, Evaluation, Mean, Problem, Score, SystemResult
from codectool.messages import printable
from tests.evaluation.report_cases import (
    IMAGE,
    PLACEHOLDER,
    QUALITY,
    RATE,
    SCRIPT,
    SECONDS,
    SEPARATORS,
    SPEECH,
    evaluation_of,
    reference,
)

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    "--autoplay-policy=no-user-gesture-required",
]
RECORD_TRACKS = """
const OriginalAudio = Audio;
window.tracks = [];
window.Audio = function () { const track = new OriginalAudio(); tracks.push(track); return track; };
"""
NO_RANDOMNESS = "crypto.getRandomValues = (values) => values.fill(0);"
FIXED_VOLUME = """
Object.defineProperty(HTMLMediaElement.prototype, "volume", { get: () => 1, set: () => {} });
"""
PLAYER = "#listen .player"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("chromium-browser")
        path = found or playwright.chromium.executable_path  # of playwright
        if not Path(path).exists():
            pytest.skip("chromium is not installed")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    evaluation = evaluation_of(folder)
    paths = {}
    for audio in ("embed", "beside"):
        paths[audio] = folder / f"{audio} #1.html"
        write_page(paths[audio], evaluation, audio=audio, title=f"Title {IMAGE}", command=SCRIPT)
    return paths


class Visit:
    """An open page, and a list of everything that it must not do."""

    def __init__(self, browser: Any, path: Path, *scripts: str, **options: Any) -> None:
        defaults = {"viewport": {"width": 1200, "height": 900}, "reduced_motion": "reduce"}
        self.context = browser.new_context(**{**defaults, **options})
        self.context.set_default_timeout(5000)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        for script in (RECORD_TRACKS, *scripts):
            self.page.add_init_script(script)
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self.page.goto(f"file://{quote(str(path))}")
        self.until("document.querySelector('.player .transport input').max > 1")

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "blob:", "data:")):
            self.faults.append(request.url)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()
        assert self.faults == []

    def until(self, condition: str) -> None:
        """Wait for a condition; polls, because the page forbids `eval` (wait_for_function)."""
        for _ in range(500):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(10)
        pytest.fail(f"timeout: {condition}")

    def heard(self) -> tuple[int, float]:
        """Return index and time of the audible track of the open clip."""
        index, time = self.page.evaluate(
            "() => { const i = tracks.findIndex((t) => t.src && !t.paused && !t.muted);"
            "return [i, tracks[i]?.currentTime ?? -1]; }"
        )
        return index, time

    def selected(self) -> str:
        return self.page.locator(".system-button[aria-pressed=true] > span").inner_text()

    def position(self) -> float:
        return float(self.page.locator(f"{PLAYER} input[type=range]").input_value())

    def column(self, table: str, number: int = 1) -> list[str]:
        return self.page.locator(f"{table} tbody tr > :nth-child({number})").all_inner_texts()


@pytest.mark.parametrize("audio", ["embed", "beside"])
def test_player_switches_systems_at_the_same_position(
    browser: Any, pages: dict[str, Path], audio: str
) -> None:
    with Visit(browser, pages[audio]) as visit:
        visit.page.locator(f"{PLAYER} input[type=range]").fill("0.6")
        visit.until("tracks.every((track) => !track.seeking && track.currentTime === 0.6)")
        visit.page.get_by_role("button", name="good", exact=True).first.click()
        assert visit.position() == pytest.approx(0.6, abs=0.01)
        assert visit.selected() == "good"
        visit.page.keyboard.press(" ")
        visit.until("tracks[1].currentTime > 0.7 && !tracks[1].muted && tracks[1].volume === 1")
        pressed = visit.page.evaluate("tracks[1].currentTime")
        visit.page.keyboard.press("2")
        visit.until("tracks[2].volume === 1 && tracks[1].muted")
        before, after = visit.page.evaluate("[tracks[1].currentTime, tracks[2].currentTime]")
        # currentTime of a track that is muted jumps by the output latency.
        assert pressed - 0.05 < after < before + 0.2, "the position is kept"
        assert visit.heard()[0] == 2
        time = visit.heard()[1]
        visit.until(f"tracks[2].currentTime > {time} + 0.05")
        visit.page.keyboard.press(" ")
        visit.until("tracks.every((track) => track.paused)")
        visit.until(
            "tracks.every((track) => Math.abs(track.currentTime - tracks[2].currentTime) < 1e-3)"
        )


def test_player_mutes_other_tracks_if_the_volume_is_fixed(
    browser: Any, pages: dict[str, Path]
) -> None:
    """Phones do not let a page set the volume."""
    with Visit(browser, pages["embed"], FIXED_VOLUME) as visit:
        visit.page.keyboard.press(" ")
        visit.until("!tracks[0].paused && !tracks[0].muted")
        visit.page.keyboard.press("2")
        visit.until("tracks.every((track, index) => track.muted === (index !== 2))")


def test_player_starts_again_after_the_end(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["embed"]) as visit:
        visit.page.locator(f"{PLAYER} input[type=range]").fill(str(SECONDS - 0.2))
        play = visit.page.locator(f"{PLAYER} .primary")
        play.click()
        visit.until("document.querySelector('.player .primary').textContent === 'Pause'")
        visit.until("document.querySelector('.player .primary').textContent === 'Play'")
        play.click()
        visit.until("!tracks[0].paused && tracks[0].currentTime < 0.6")


def test_player_loops_a_dragged_range(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["embed"]) as visit:
        overlay = visit.page.locator(".overlay")
        overlay.scroll_into_view_if_needed()
        box = overlay.bounding_box()
        y = box["y"] + box["height"] / 2
        visit.page.mouse.click(box["x"] + box["width"] * 0.8, y)
        visit.until("tracks.every((track) => Math.abs(track.currentTime - 3.2) < 0.02)")
        visit.page.mouse.move(box["x"] + box["width"] * 0.2, y)
        visit.page.mouse.down()
        visit.page.mouse.move(box["x"] + box["width"] * 0.4, y, steps=3)
        visit.page.mouse.up()
        assert visit.page.locator(".loop-range").is_visible()
        visit.page.keyboard.press(" ")
        visit.until("tracks[0].currentTime > 1.3")
        visit.until("tracks[0].currentTime < 1.2")
        visit.page.keyboard.press("l")
        assert not visit.page.locator(".loop-range").is_visible()
        visit.until("tracks[0].currentTime > 1.8")


def test_shortcuts(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["embed"]) as visit:
        press = visit.page.keyboard.press
        press("1")
        assert visit.selected() == "good"
        press("ArrowRight")
        assert visit.position() == pytest.approx(1, abs=0.01)
        press("ArrowLeft")
        assert visit.position() == pytest.approx(0, abs=0.01)
        press("9")  # no such system
        assert visit.selected() == "good"
        press("n")
        assert visit.page.locator(f"{PLAYER} h3").inner_text() == PLACEHOLDER
        visit.until("document.querySelector('.system-button[aria-pressed=true]') !== null")
        assert visit.selected() == "good", "the system is kept"
        press("3")  # has no audio of this clip
        assert visit.selected() == "good"
        press("p")
        assert visit.page.locator(f"{PLAYER} h3").inner_text() == IMAGE
        press("?")
        assert visit.page.get_by_role("dialog").is_visible()
        press("Escape")
        visit.page.locator("#chart select").focus()
        before = visit.selected()
        for key in ("0", "n", "?"):
            press(key)
        assert visit.selected() == before
        assert visit.page.locator(f"{PLAYER} h3").inner_text() == IMAGE
        assert not visit.page.get_by_role("dialog").is_visible()


def test_summary_sorts_by_click_and_by_key(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["embed"]) as visit:
        head = visit.page.locator(".summary thead th").nth(2)
        assert visit.column(".summary") == ["originals", "good", SCRIPT, "unknown"]
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert visit.column(".summary") == ["originals", "good", "unknown", SCRIPT]
        head.get_by_role("button").focus()
        visit.page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert visit.column(".summary") == [SCRIPT, "unknown", "good", "originals"]
        rates = visit.page.locator(".summary thead th").nth(1)
        for order in ([SCRIPT, "good"], ["good", SCRIPT]):
            rates.get_by_role("button").click()
            known = [*order, "originals", "unknown"]
            assert visit.column(".summary") == known, "an unknown bit rate comes last"
        assert head.get_attribute("aria-sort") is None
        best = visit.page.locator(".summary strong").all_inner_texts()
        assert [text.split()[-1] for text in best] == ["3.50", "0.175"], "not an original"
        originals = visit.page.locator(f"{PLAYER} .scores tbody tr").first.locator("td")
        assert originals.all_inner_texts() == ["4.50", ""]
        visit.page.locator(".clips thead button", has_text="good").click()
        assert visit.column(".clips") == [PLACEHOLDER, printable(SEPARATORS), IMAGE], (
            "the worst clips come first"
        )


def test_chart_and_clips_share_one_metric(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["embed"]) as visit:
        assert "unknown (3.10)" in visit.page.locator("#chart").inner_text()
        assert visit.page.locator("#chart svg .point").count() == 2
        visit.page.locator("#chart select").select_option("error")
        assert visit.page.locator("#listen select").input_value() == "error"
        assert "lower is better" in visit.page.locator("#listen").inner_text()
        assert "0.100" in visit.column(".clips", 3)[0]
        cell = visit.page.locator(".clips tbody tr").nth(1).locator("td").last
        assert cell.get_attribute("title") == "it came back empty"
        visit.page.locator(".clips button", has_text=printable(SEPARATORS)).click()
        assert visit.page.locator(f"{PLAYER} h3").inner_text() == printable(SEPARATORS)
        assert (
            visit.page.locator(".clips [aria-current=true]")
            .inner_text()
            .endswith(printable(SEPARATORS))
        )


def test_summary_opens_the_worst_clip(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["embed"]) as visit:
        cell = visit.page.locator(".summary tbody tr").nth(1).locator("td").nth(1)
        worst = cell.get_by_role("button")
        assert worst.inner_text().startswith("worst 3.00")
        worst.click()
        heading = visit.page.locator(f"{PLAYER} h3")
        assert heading.inner_text() == PLACEHOLDER
        assert visit.page.evaluate("scrollY") > 0
        assert 0 <= heading.bounding_box()["y"] < 450, "it is visible"


def start_blind_test(visit: Visit, trials: str) -> None:
    visit.page.get_by_label("Trials").select_option(trials)
    visit.page.get_by_role("button", name="Start").click()


def test_blind_test_counts_correct_answers(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["embed"], NO_RANDOMNESS) as visit:  # X is always A
        start_blind_test(visit, "8")
        for number, answer in enumerate("ABAAABAA", 1):
            visit.until(
                f"document.querySelector('.blind-test h3').textContent === 'Trial {number} of 8'"
                " && !document.querySelector('.blind-test .transport .primary').disabled"
            )
            if number == 1:
                visit.page.keyboard.press("x")
                visit.until("tracks.at(-1).currentTime > 0.1 && !tracks.at(-1).muted")
            visit.page.get_by_role("button", name=f"X is {answer}").click()
        text = visit.page.locator("#blind").inner_text()
        assert "6 of 8 correct" in text
        assert "gives at least 6 of 8 correct answers in 14.5 % of tests (p = 0.145" in text
        assert visit.column(".answer-table", 5).count("✗ no") == 2
        with visit.page.expect_download() as download:
            visit.page.get_by_role("button", name="Download").click()
        found = json.loads(Path(download.value.path()).read_text())
        assert (found["correct"], found["answered"], found["p"]) == (6, 8, 37 / 256)
        assert [trial["answer"] for trial in found["trials"]] == list("ABAAABAA")
        visit.page.get_by_role("button", name="New test").click()
        assert visit.page.get_by_role("button", name="Start").is_visible()


def test_blind_test_hides_results_until_the_end(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["beside"]) as visit:
        visit.page.get_by_label("B", exact=True).select_option("0")
        assert visit.page.get_by_role("button", name="Start").is_disabled()
        visit.page.get_by_label("B", exact=True).select_option("3")
        assert "2 clips" in visit.page.locator("#blind").inner_text()
        start_blind_test(visit, "24")
        for number in range(1, 13):
            visit.until(
                f"document.querySelector('.blind-test h3').textContent === 'Trial {number} of 24'"
                " && !document.querySelector('.blind-test .transport .primary').disabled"
            )
            assert "correct" not in visit.page.locator("#blind").inner_text()
            visit.page.keyboard.press("Shift+A" if number % 3 else "Shift+B")
        visit.page.get_by_role("button", name="Stop").click()
        assert "Stopped after 12 answers of 24" in visit.page.locator("#blind").inner_text()
        secrets, answers = visit.column(".answer-table", 3), visit.column(".answer-table", 4)
        assert set(secrets) <= {"A", "B"}
        assert answers == list("AABAABAABAAB")
        correct = sum(x == answer for x, answer in zip(secrets, answers, strict=True))
        assert visit.page.locator("#blind h3").inner_text() == f"{correct} of 12 correct"


def test_report_shows_names_as_text(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["embed"]) as visit:
        assert visit.page.title() == f"Title {IMAGE}"
        assert visit.page.locator("header code").inner_text() == SCRIPT
        assert visit.column(".summary")[2] == SCRIPT
        assert "not audio <img" in visit.page.locator("#notes").inner_text()
        assert visit.page.locator("img[src=x]").count() == 0
        assert visit.page.locator("img:visible").count() == 2
        clip = visit.page.locator(".clips tbody button").last
        assert clip.text_content() == printable(SEPARATORS)
        clip.click()
        assert visit.page.locator(f"{PLAYER} h3").text_content() == printable(SEPARATORS)
        start_blind_test(visit, "8")
        assert "A is Reference, B is good." in visit.page.locator("#blind").inner_text()
        assert visit.page.locator("script:not([type])").count() == 1, "only the script of the page"


UNNAMED = """() => [...document.querySelectorAll(
  "button, select, input, a, progress, dialog, section, nav, [role=region], [role=img], img")]
  .filter((each) => each.checkVisibility())
  .filter((each) => !(each.ariaLabel || each.alt || each.textContent.trim() ||
    [...(each.labels ?? [])].some((label) => label.textContent.trim())))
  .map((each) => each.outerHTML)"""


@pytest.mark.parametrize("width", [360, 1280])
def test_report_fits_many_systems_and_long_names(browser: Any, tmp_path: Path, width: int) -> None:
    name = "a/folder/" + "very_long_name-" * 8 + "x" * 120
    clip = Clip(name, tmp_path / "a.wav", SECONDS, SPEECH)
    soundfile.write(clip.path, reference(0), RATE)
    metrics = tuple(replace(QUALITY, name=f"m{n}", title=f"measure {n}") for n in range(14))
    score = Score(name, clip.path, {metric.name: -1234.5 for metric in metrics})
    means = {metric.name: Mean(-1234.5, -1300, -1200, -1400, name, 1) for metric in metrics}
    systems = tuple(SystemResult(f"{n}{name}", (score,), means, 0.0, n + 1.0) for n in range(12))
    problems = (Problem(systems[0].name, name, "x" * 200),)
    evaluation = Evaluation((clip,), metrics, systems, ("y" * 200,), problems)
    page = tmp_path / "page.html"
    write_page(page, evaluation, title=name, command=name)
    with Visit(browser, page, viewport={"width": width, "height": 800}) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width
        for table in (".summary", ".scores", ".clips table"):
            cell = visit.page.locator(f"{table} tbody tr:last-child > th")
            overflow, taken = cell.evaluate("(c) => [c.scrollWidth - c.clientWidth, c.clientWidth]")
            assert overflow <= 0, "the name fits its cell"
            assert taken < width * 0.75, "the name leaves space for values"
        visit.page.get_by_role("button", name="Start").click()
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_on_a_phone(browser: Any, pages: dict[str, Path], scheme: str) -> None:
    options = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with Visit(browser, pages["embed"], **options) as visit:
        width = "document.documentElement.scrollWidth"
        assert visit.page.evaluate(width) == 360
        assert visit.page.evaluate(UNNAMED) == []
        visit.page.get_by_role("button", name="Start").click()
        assert visit.page.evaluate(width) == 360
        assert visit.page.evaluate(UNNAMED) == []
        visit.page.keyboard.press("?")
        assert visit.page.evaluate(width) == 360
        assert visit.page.evaluate(UNNAMED) == []
        background = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(background[4:].split(",")[0]) < 60) == (scheme == "dark")
