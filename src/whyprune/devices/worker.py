"""The runner with all of whyprune's runtimes: `python worker.py spec.json`, as a program of its own.

whyprune's packages are entered by their folders, without what they import: PyTorch would otherwise count in the
memory of every runtime.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent


def main() -> int:
    """The program. Returns its exit status."""
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != HERE]  # its modules are no top-level names
    for name, folder in (("whyprune", HERE.parent), ("whyprune.devices", HERE)):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    runner = import_module("whyprune.devices.runner")
    runner.RUNTIMES.update(import_module("whyprune.devices.runtimes").RUNTIMES)
    runner.METERS[:] = import_module("whyprune.devices.energy").meters()
    status: int = runner.main(command=[sys.executable, str(HERE / "worker.py")])
    return status


if __name__ == "__main__":
    sys.exit(main())
