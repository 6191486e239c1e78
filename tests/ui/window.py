"""A browser window in Airflow: opens the plugin's views, collects what the console says, takes screenshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

TOLERATED: Final = (
    # Airflow's own frame has both words; Chromium says so about every such frame.
    "An iframe which has both allow-scripts and allow-same-origin",
)
PATIENCE: Final = 60_000.0
"""Milliseconds."""


class Window:
    """A window of one user.

    :param theme: ``light`` or ``dark``, as the user has chosen it in Airflow.
    """

    def __init__(
        self, chromium: Any, airflow: Any, user: str, *, axe: str, shots: Path, theme: str = "light"
    ) -> None:
        self.airflow = airflow
        self.theme = theme
        self.console: list[str] = []
        self.elsewhere: list[str] = []
        self._axe = axe
        self._shots = shots
        self.context = chromium.new_context(viewport={"width": 1500, "height": 1000}, color_scheme=theme)
        self.context.set_default_timeout(PATIENCE)
        self.context.add_cookies([{"name": "_token", "value": airflow.token(user), "url": airflow.url}])
        self.context.add_init_script(f"try {{ localStorage.setItem('theme', '{theme}') }} catch {{}}")
        self.page = self.context.new_page()
        self.page.on("console", self._noted)
        self.page.on("pageerror", lambda error: self.console.append(f"exception: {error}"))
        self.page.on("request", self._asked)

    def _noted(self, message: Any) -> None:
        if message.type == "error" and not message.text.startswith(TOLERATED):
            self.console.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.airflow.origin, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def close(self) -> None:
        self.context.close()
        assert self.console == []
        assert self.elsewhere == []

    # --- views

    def task(self, task_id: str, *, dag_id: str = "campaign", map_index: int = -1) -> Any:
        """Open the tab of a task instance; returns its frame."""
        run = quote(self.airflow.runs[dag_id], safe="")
        mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
        return self.open(f"/dags/{dag_id}/runs/{run}/tasks/{task_id}{mapped}/plugin/kling")

    def gallery(self) -> Any:
        """Open the gallery from the navigation; returns its frame."""
        return self.open("/plugin/kling-gallery")

    def open(self, path: str) -> Any:
        """Open one of Airflow's pages; returns the plugin's frame in it."""
        self.page.goto(self.airflow.url + path)
        self.page.wait_for_selector("iframe")
        frame = self.page.frame_locator("iframe")
        frame.locator("main, .quiet-line, .notice").first.wait_for()
        return frame

    @property
    def frame(self) -> Any:
        """The plugin's frame itself, to run scripts in."""
        inner = [each for each in self.page.frames if each != self.page.main_frame]
        (found,) = (each for each in inner if "/kling/" in each.url)
        return found

    # --- what is to be seen

    def video(self) -> dict[str, Any]:
        """What the first video of the view says of itself, once it can play through."""
        script = """async () => {
          const video = document.querySelector("video");
          for (let left = 300; left && video.readyState < 4; left--) await new Promise((go) => setTimeout(go, 100));
          return { readyState: video.readyState, duration: video.duration, width: video.videoWidth };
        }"""
        return dict(self.frame.evaluate(script))

    def sought(self, seconds: float) -> float:
        """Where the first video is after seeking."""
        script = """async (to) => {
          const video = document.querySelector("video");
          video.currentTime = to;
          for (let left = 300; left && (video.seeking || video.readyState < 2); left--) {
            await new Promise((go) => setTimeout(go, 100));
          }
          return video.currentTime;
        }"""
        return float(self.frame.evaluate(script, seconds))

    def brightness(self) -> float:
        """Mean brightness, 0 to 255, of the picture that the first video shows now."""
        script = """() => {
          const canvas = document.createElement("canvas");
          canvas.width = canvas.height = 32;
          const brush = canvas.getContext("2d");
          brush.drawImage(document.querySelector("video"), 0, 0, 32, 32);
          const data = brush.getImageData(0, 0, 32, 32).data;
          return data.reduce((sum, value, index) => (index % 4 === 3 ? sum : sum + value), 0) / (32 * 32 * 3);
        }"""
        return float(self.frame.evaluate(script))

    def serious(self) -> list[str]:
        """What axe-core finds in the view that keeps people out."""
        self.frame.evaluate(self._axe)
        found = self.frame.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
        return [
            f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
        ]

    def shot(self, name: str) -> None:
        """Take a screenshot of the whole window."""
        self._shots.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(700)
        self.page.screenshot(path=str(self._shots / f"{name}-{self.theme}.png"))
