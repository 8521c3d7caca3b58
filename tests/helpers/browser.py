"""A real headless Chromium, driven through chromedriver's own HTTP protocol (W3C WebDriver)."""

import base64
import contextlib
import json
import shutil
import subprocess
import urllib.request

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = None if CHROMIUM and DRIVER else "needs chromium and chromedriver (apt-get install chromium chromium-driver)"
KEYS = {
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Space": " ",
    "Left": "\ue012",
    "Up": "\ue013",
    "Right": "\ue014",
    "Delete": "\ue017",
}
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--no-first-run",
)


class Browser:
    def __init__(self, address):
        self._address = address

    def _call(self, method, path, **body):
        data = json.dumps(body).encode() if method == "POST" else None
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, data, kind, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=300) as answer:
            return json.load(answer)["value"]

    def open(self, place):
        """Show a file or an address."""
        self._call("POST", "/url", url=place if isinstance(place, str) else place.absolute().as_uri())

    def upload(self, selector, path):
        """Choose a file in an input."""
        found = self._call("POST", "/element", using="css selector", value=selector)
        self._call("POST", f"/element/{next(iter(found.values()))}/value", text=str(path))

    def drag(self, x, y, right, down=0):
        """Press the mouse at a point of the window, move it and let go."""
        moves = [(x, y), (x + right / 2, y + down / 2), (x + right, y + down)]
        actions = [{"type": "pointerMove", "x": round(a), "y": round(b), "duration": 30} for a, b in moves]
        actions[1:1] = [{"type": "pointerDown", "button": 0}]
        actions.append({"type": "pointerUp", "button": 0})
        self._call("POST", "/actions", actions=[{"type": "pointer", "id": "mouse", "actions": actions}])

    def tabs(self):
        return self._call("GET", "/window/handles")

    def new_tab(self):
        """Open a tab and turn to it."""
        self.turn_to(self._call("POST", "/window/new", type="tab")["handle"])

    def turn_to(self, tab):
        self._call("POST", "/window", handle=tab)

    def run(self, script, *arguments):
        """The value of a JavaScript function body."""
        return self._call("POST", "/execute/sync", script=script, args=list(arguments))

    def until(self, condition, seconds=20):
        """Wait for a JavaScript expression to become true; fails after `seconds`."""
        script = (
            "const done = arguments[0], stop = Date.now() + 1000 * %d; const look = () =>"
            " (%s) ? done(true) : Date.now() > stop ? done(false) : setTimeout(look, 30); look()"
        )
        assert self._call("POST", "/execute/async", script=script % (seconds, condition), args=[]), condition

    def press(self, *keys):
        strokes = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", actions=[{"type": "key", "id": "keys", "actions": strokes}])

    def complaints(self):
        """What the console said since last asked, of any severity above information."""
        return [entry for entry in self._call("POST", "/se/log", type="browser") if entry["level"] != "INFO"]

    def downloads(self, folder):
        """Where what the page saves goes."""
        where = {"behavior": "allow", "downloadPath": str(folder)}
        self._call("POST", "/goog/cdp/execute", cmd="Browser.setDownloadBehavior", params=where)

    def media(self, **features):
        """Emulate, as in media(**{"prefers-color-scheme": "dark"})."""
        features = [{"name": name, "value": value} for name, value in features.items()]
        self._call("POST", "/goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": features})

    def resize(self, width, height):
        self._call("POST", "/window/rect", width=width, height=height)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))


@contextlib.contextmanager
def browser(profile):
    """A Browser with its own empty profile folder."""
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = next(line for line in driver.stdout if "started successfully on port" in line)
        address = f"http://127.0.0.1:{line.rsplit(' ', 1)[1].strip().rstrip('.')}/session"
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": 120_000},  # ms, longer than any `until`
        }
        session = Browser(address)._call("POST", "", capabilities={"alwaysMatch": wanted})
        opened = Browser(f"{address}/{session['sessionId']}")
        try:
            yield opened
        finally:
            opened._call("DELETE", "")
    finally:
        driver.terminate()
        driver.wait(10)
        driver.stdout.close()
