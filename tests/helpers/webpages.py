"""Readers of HTML pages for the tests."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import torch

VOID = {"meta", "img", "br", "input"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Reader(HTMLParser):
    """Read elements, ids and the text of each element; every element must be closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.elements, self.texts = [], set(), [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if "id" in attrs:
            assert attrs["id"] not in self.ids
            self.ids.add(attrs["id"])
        if tag not in VOID:
            self.open.append((tag, attrs.get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


def content(text):
    """Return the data that a page holds as JSON."""
    return json.loads(Reader(text).texts["script", "data"])


def array(text, kind=np.float32):
    return torch.tensor(np.frombuffer(base64.b64decode(text), kind))


def is_self_contained(text):
    """Check that no element of a page loads anything from outside."""
    for _, attrs in Reader(text).elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attrs.get(name, "data:").startswith("data:")
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|importScripts|WebSocket", text)
    # the name of a vocabulary, from which nothing is loaded
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}


def in_browser(text, folder, script):
    """Run a script in a page in a browser, and return the JSON that it writes to an element of its own."""
    end = f"<pre id='found'></pre><script>{script}</script></body>"
    (folder / "page.html").write_text(text.replace("</body>", end), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--window-size=1200,900"]
    address = (folder / "page.html").as_uri()
    command = [CHROMIUM, *options, f"--user-data-dir={folder / 'profile'}", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(Reader(done.stdout).texts["pre", "found"])
