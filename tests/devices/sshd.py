"""A device on this machine: a real sshd with its own keys, a user of its own, and a Python that has no whyprune."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

USER = f"whyprune-{os.getpid()}"
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

# Runs first in every Python there. The file `hang` holds a word: who has it in its command line hangs at the import
# of ONNX Runtime. With the file `no-tmp` there is no temporary folder.
FIRST = """
import os, sys, tempfile, time
home = os.path.expanduser("~")
class Hanging:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            with open(home + "/hanging", "w") as file:
                file.write(str(os.getpid()))
            time.sleep(120)
if os.path.exists(home + "/hang") and open(home + "/hang").read() in " ".join(sys.orig_argv):
    sys.meta_path.insert(0, Hanging())
if os.path.exists(home + "/no-tmp"):
    tempfile._candidate_tempdir_list = lambda: ["/no/such/folder"]
"""


def python_for_all():
    """A Python that every user of this machine may run: the system's, or the one these tests run in."""
    found = ["/usr/bin/python3", "/usr/local/bin/python3", getattr(sys, "_base_executable", sys.executable)]
    real = [Path(path).resolve() for path in found if os.access(path, os.X_OK)]
    return next((p for p in real if all(f.stat().st_mode & 0o001 for f in (p, *p.parents))), None)


def why_not():
    """Why no sshd can be started here; None if one can."""
    if SSHD is None:
        return "no sshd is installed (Debian: openssh-server)"
    if os.geteuid() != 0:
        return "only root can add the user that the device runs as"
    if python_for_all() is None:
        return "no Python here may be run by another user (Debian: python3)"
    return None


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)


def environment(cache: Path, folder: Path) -> Path:
    """A fresh environment with NumPy and ONNX Runtime, of the versions this Python gets, and nothing of this one."""
    base = python_for_all()
    kept = cache / f"{base.name}-numpy-onnxruntime"
    if not kept.is_dir():
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            run(str(base), "-m", "venv", "--without-pip", f"{temporary}/env")
            pip = [sys.executable, "-m", "pip", "--python", f"{temporary}/env/bin/python", "install", "--quiet"]
            run(*pip, "--disable-pip-version-check", "--no-deps", "numpy", "onnxruntime")
            with contextlib.suppress(OSError):  # other tests may have made it meanwhile
                os.rename(f"{temporary}/env", kept)
    shutil.copytree(kept, folder, symlinks=True)
    return folder / "bin" / "python"


def forget_users():
    """Removes users of earlier tests that were killed."""
    for account in pwd.getpwall():
        number = account.pw_name.removeprefix("whyprune-")
        if number.isdecimal() and number != account.pw_name and not Path("/proc", number).exists():
            subprocess.run(["userdel", account.pw_name], capture_output=True, check=False)


class Device:
    """The machine elsewhere.

    Attributes:
        address: its name for whyprune.
        options: what ssh is told so that nothing of this user's own configuration plays a part.
        tmp: its temporary folder.
        home: its user's home folder.
    """

    def __init__(self, cache: Path) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="whyprune-sshd-"))
        self.root.chmod(0o755)
        self.home, self.tmp = self.root / "home", self.root / "tmp"
        forget_users()
        run("useradd", "--no-create-home", "--home-dir", str(self.home), "--shell", "/bin/sh", "-p", "*", USER)
        self.account = pwd.getpwnam(USER)
        for folder in (self.home, self.tmp):
            folder.mkdir()
            os.chown(folder, self.account.pw_uid, self.account.pw_gid)
        self.python = environment(cache, self.root / "env")
        site = next((self.root / "env" / "lib").glob("python*")) / "site-packages"
        (site / "first.py").write_text(FIRST)
        (site / "first.pth").write_text("import first\n")
        for name in ("host", "other", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.root / name))
        (self.root / "authorized").write_text((self.root / "user.pub").read_text())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.know("host")
        self.daemon = None
        self.start()

    @property
    def address(self):
        return f"ssh://{USER}@127.0.0.1:{self.port}{self.python}"

    @property
    def options(self):
        files = {"UserKnownHostsFile": "known", "GlobalKnownHostsFile": "none", "IdentityFile": "user"}
        words = [w for name, file in files.items() for w in ("-o", f"{name}={self.root / file}")]
        return ("-F", "none", *words, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none")

    def know(self, key):
        """Makes this machine know the device by that key."""
        public = (self.root / f"{key}.pub").read_text()
        (self.root / "known").write_text(f"[127.0.0.1]:{self.port} {public}")

    def start(self, tmp=None, command=None):
        """Starts sshd, anew if it runs."""
        self.stop()
        settings = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": self.root / "host",
            "AuthorizedKeysFile": self.root / "authorized",
            "PidFile": "none",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UsePAM": "no",
            "StrictModes": "no",
            "AllowUsers": USER,
            "SetEnv": f"TMPDIR={tmp or self.tmp}",
            **({"ForceCommand": command} if command else {}),
        }
        config = self.root / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        Path("/run/sshd").mkdir(exist_ok=True)
        with open(self.root / "log", "ab") as log:
            self.daemon = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError((self.root / "log").read_text())

    def stop(self):
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait()
            self.daemon = None

    def processes(self):
        """Command lines of the user's processes, by process number."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if entry.stat().st_uid == self.account.pw_uid:
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def hang(self, word):
        """The next measurement there that has this word in its command line hangs."""
        (self.home / "hanging").unlink(missing_ok=True)
        (self.home / "hang").write_text(word)

    def hanging(self, seconds=60):
        """The process that hangs, once it does."""
        for _ in range(int(seconds * 20)):
            with contextlib.suppress(OSError, ValueError):
                return int((self.home / "hanging").read_text())
            time.sleep(0.05)
        raise AssertionError("nothing hangs there")

    def go_on(self):
        for name in ("hang", "no-tmp"):
            (self.home / name).unlink(missing_ok=True)

    def left(self, seconds=20):
        """What is left there: files and processes; waited for until there is nothing."""
        for _ in range(int(seconds * 10)):
            left = [*(p.name for p in self.tmp.iterdir()), *self.processes().values()]
            if not left:
                return []
            time.sleep(0.1)
        return left

    def remove(self):
        self.stop()
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        subprocess.run(["userdel", USER], capture_output=True, check=False)
        shutil.rmtree(self.root, ignore_errors=True)
