"""What this process opens while it answers requests."""

import sys
import sysconfig

from tests.runs import ROOT

# Where Python's own modules may be read from while the tests run.
LIBRARIES = tuple({*sys.path, *sysconfig.get_paths().values(), str(ROOT / "paca_jax"), str(ROOT / "tests")} - {"", str(ROOT)})


class Opened:
    """What the process opens, lists, makes, moves, removes or starts while it listens."""

    EVENTS = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink")

    def __init__(self):
        self.listening, self.events = False, []
        sys.addaudithook(self._hook)  # which cannot be taken back

    def _hook(self, event, arguments):
        if self.listening and (event in self.EVENTS or event.startswith(("subprocess.", "os.exec", "tempfile."))):
            self.events.append((event, arguments[0] if arguments else None))

    @property
    def strange(self):
        """The events that are no loading of a module of a library."""
        return [each for each in self.events if not _is_library(*each)]


def _is_library(event, path):
    if event == "os.listdir" or event == "os.scandir":  # of the folders that modules are looked for in
        return str(path).startswith(LIBRARIES)
    return event == "open" and str(path).startswith(LIBRARIES) and str(path).endswith((".py", ".pyc", ".so"))
