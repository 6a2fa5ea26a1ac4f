"""A page in headless Chromium, driven through the DevTools protocol over a pair of pipes."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Tab": 9}
_MINUTE = 60.0


class Browser:
    """A browser with one page, which remembers every message of its console and every address that it asked for."""

    def __init__(self, profile):
        reads, writes = _high_pipe(), _high_pipe()
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb")
        line = [CHROMIUM, *options, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        shell = ["bash", "-c", f'exec "$@" 3<&{reads[0]} 4>&{writes[1]}', "chromium", *line]
        self._process = subprocess.Popen(
            shell, pass_fds=(reads[0], writes[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(reads[0])
        os.close(writes[1])
        self._to, self._from = os.fdopen(reads[1], "wb", 0), os.fdopen(writes[0], "rb")
        self._count, self._rest, self._session = 0, b"", None
        self.troubles, self.addresses, self._loaded = [], [], False
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Sends a command and returns its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self):
        message = bytearray()
        while not message.endswith(b"\0"):
            letter = self._from.read1(65536) if not self._rest else self._rest
            assert letter, "the browser has ended"
            head, end, self._rest = letter.partition(b"\0")
            message += head + end
        event = json.loads(message[:-1])
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.troubles.append(parameters["exceptionDetails"])
        if event.get("method") == "Log.entryAdded":
            self.troubles += [parameters["entry"]] * (parameters["entry"]["level"] == "error")
        if event.get("method") == "Network.requestWillBeSent":
            self.addresses.append(parameters["request"]["url"])
        self._loaded |= event.get("method") == "Page.loadEventFired"
        return event

    def open(self, path, width=1440, height=900, scheme="light", touch=False):
        """Opens a file, or an address, at a size of the window, and waits until it is loaded."""
        self.troubles, self.addresses, self._loaded = [], [], False
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path if "://" in str(path) else f"file://{path}")
        self.wait_for_page()

    def wait_for_page(self):
        """Waits until the page that is on its way is loaded."""
        while not self._loaded:
            self._receive()
        self._loaded = False

    def choose_file(self, selector, path):
        """Chooses a file in an input of a form."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def value(self, expression):
        """Returns the value of an expression of JavaScript in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression):
        """Waits until an expression is true in the page."""
        end = time.monotonic() + _MINUTE
        while not self.value(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def place(self, selector, x=0.5, y=0.5):
        """Returns a point in an element, as fractions of its sides, in pixels of the window, after scrolling to it."""
        box = self.value(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect(); "
            f"return [b.left + {x} * b.width, b.top + {y} * b.height]; }})(document.querySelector({json.dumps(selector)}))"
        )
        return {"x": box[0], "y": box[1]}

    def hover(self, selector, x=0.5, y=0.5):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **self.place(selector, x, y))

    def click(self, selector, x=0.5, y=0.5):
        place = self.place(selector, x, y)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def tap(self, selector, x=0.5, y=0.5):
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[self.place(selector, x, y)])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, key):
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=_KEYS[key], **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=_KEYS[key])

    def screenshot(self, path):
        """Writes a picture of the whole page."""
        height = self.value("document.documentElement.scrollHeight")
        width = self.value("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        found = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(found["data"]))

    def close(self):
        self._session = None
        self.call("Browser.close")
        self._process.wait(_MINUTE)
        self._to.close()
        self._from.close()


def _high_pipe():
    """Returns both ends of a pipe, with numbers that a shell's redirections to 3 and 4 cannot collide with."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
    for end in ends:
        os.close(end)
    return high
