"""A headless Chromium, driven over its debugging pipe: no driver program, no port, no library.

The DevTools protocol: JSON objects, each ended by a NUL, in at file
descriptor 3 and out at 4.  The browser can reach nothing but this machine.
"""

import base64
import json
import os
import select
import signal
import subprocess
import time
from types import TracebackType
from typing import Any, Self

PROGRAM = "chromium"

PATIENCE_SECONDS = 60.0
"""How long a test waits for what must happen, before it fails instead of hanging."""

_REDIRECTED = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'

FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # it runs as root, and sees nothing but our own page
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

WAIT = """new Promise((done) => {
  const look = () => { const found = (%s); if (found) done(found); else setTimeout(look, 25); };
  look();
})"""


class Browser:
    """One browser with one page.

    ``complaints`` are errors and warnings that the page's console showed, and
    exceptions that nobody caught; ``requests`` the addresses that were asked for.
    """

    def __init__(self, directory: str, *, width: int = 1280, height: int = 900) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._session = ""
        self._unread = b""
        in_read, self._in = os.pipe()
        self._out, out_write = os.pipe()
        program = [PROGRAM, *FLAGS, f"--window-size={width},{height}", f"--user-data-dir={directory}"]
        self._process = subprocess.Popen(
            ["bash", "-c", _REDIRECTED, "bash", str(in_read), str(out_write), *program, "about:blank"],
            pass_fds=(in_read, out_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(in_read)
        os.close(out_write)
        target = self.command(
            "Target.createTarget", url="about:blank", newWindow=True, width=width, height=height
        )["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._in)
        os.killpg(self._process.pid, signal.SIGKILL)  # its own session: all of its processes
        self._process.wait()
        os.close(self._out)

    # -- the protocol -----------------------------------------------------------------

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Have something done; returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            told = self._next(deadline)
            if told.get("id") == self._number:
                assert "error" not in told, f"{method}: {told['error']}"
                result: dict[str, Any] = told["result"]
                return result
            self._note(told)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                raise AssertionError("the browser does not answer, or what was waited for did not happen")
            data = os.read(self._out, 1 << 20)
            assert data, "the browser has ended"
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\0")
        told: dict[str, Any] = json.loads(line)
        return told

    def _note(self, told: dict[str, Any]) -> None:
        params = told.get("params", {})
        match told.get("method"):
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                values = [str(each.get("value", each.get("description"))) for each in params["args"]]
                self.complaints.append(f"{params['type']}: {' '.join(values)}")
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                entry = params["entry"]
                self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case _:
                pass

    # -- the page ---------------------------------------------------------------------

    def open(self, address: str) -> None:
        self.command("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it comes to."""
        told = self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The value of an expression once it is true."""
        return self.evaluate(WAIT % expression)

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def wait_text(self, selector: str, text: str) -> None:
        """Return once the element has this text in it."""
        self.wait(f"document.querySelector({json.dumps(selector)})?.innerText.includes({json.dumps(text)})")

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        """Put the focus there, replace what it holds, and type."""
        self.evaluate(f"(e => {{ e.focus(); e.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.command("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text
            )

    def accessible(self) -> list[dict[str, Any]]:
        """What a screen reader is told: role, name and whether it can have the focus."""
        nodes = self.command("Accessibility.getFullAXTree")["nodes"]
        return [
            {
                "role": node.get("role", {}).get("value", ""),
                "name": node.get("name", {}).get("value", ""),
                "focusable": any(
                    each["name"] == "focusable" and each["value"]["value"]
                    for each in node.get("properties", ())
                ),
            }
            for node in nodes
            if not node.get("ignored")
        ]

    def prefer(self, scheme: str) -> None:
        """``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def screenshot(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])
