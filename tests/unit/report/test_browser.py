"""The page in a real browser: no console message, nothing wider than a phone, light and dark."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from manyface.report import write_report

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_CHROMIUM = next((path for path in map(shutil.which, _NAMES) if path), None)
pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason="needs Chromium: no browser found")

_OPTIONS = [
    "--headless", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--disable-quic",
    "--disable-dev-shm-usage",  # 64 MB in a container
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--virtual-time-budget=2000", "--enable-logging=stderr", "--v=0",
]  # fmt: skip

# Written beside the report: a frame as wide as a phone, measured from outside, because the page
# itself refuses scripts.
_PROBE = """<!doctype html><link rel="icon" href="data:,"><body><iframe id="phone" src="{page}"
style="width:{width}px;height:1500px;border:0"></iframe><script>
onload = () => {{
  const inside = document.getElementById("phone").contentDocument;
  const root = inside.documentElement;
  const wide = [...inside.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre")
    && e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.tagName).join(" ");
  const style = inside.defaultView.getComputedStyle(inside.body);
  document.body.textContent = "client " + root.clientWidth + " scroll " + root.scrollWidth
    + " wide [" + wide + "] pictures " + [...inside.images].filter(i => i.naturalWidth > 0).length
    + " sections " + inside.querySelectorAll("section").length + " page " + style.backgroundColor;
}};</script>"""


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert _CHROMIUM is not None
    return subprocess.run(
        [_CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", *options, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([demo], tmp_path_factory.mktemp("page") / "report.html")


def measured(page: Path, profile: Path, width: int, *options: str) -> str:
    probe = page.with_name("probe.html")
    probe.write_text(_PROBE.format(page=page.name, width=width))
    found = browse(probe, profile, "--allow-file-access-from-files", "--dump-dom", *options)
    assert "CONSOLE" not in found.stderr, found.stderr
    return found.stdout


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_is_wider_than_the_window(page: Path, tmp_path: Path, width: int) -> None:
    found = measured(page, tmp_path / "profile", width, "--window-size=1400,1600")
    assert f"client {width} scroll {width} wide []" in found, found
    assert "pictures 48" in found
    assert "sections 6" in found


def test_dark_mode_has_a_dark_page(page: Path, tmp_path: Path) -> None:
    light = measured(page, tmp_path / "light", 390)
    dark = measured(page, tmp_path / "dark", 390, "--blink-settings=preferredColorScheme=0")
    assert "page rgb(251, 251, 249)" in light
    assert "page rgb(20, 22, 26)" in dark


def test_the_page_itself_logs_nothing_and_is_drawn(page: Path, tmp_path: Path) -> None:
    from PIL import Image

    shot = tmp_path / "page.png"
    found = browse(page, tmp_path / "profile", f"--screenshot={shot}", "--window-size=390,2400")
    assert not re.search("CONSOLE|ERR_", found.stderr), found.stderr
    with Image.open(shot) as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=10**7)
    assert colours is not None
    assert len(colours) > 100
