"""An emulated Raspberry Pi: arm64 Debian 12 with tflite-runtime in its Python, reached by ssh on the loopback.

    python -m tools.raspberry_pi start      makes it if need be, starts it, and prints its runtime: ssh://pi@127.0.0.1:...
    python -m tools.raspberry_pi stop

The root folder is made once, into a cache: Debian's arm64 packages are downloaded by an apt with a state of its own and
unpacked, not installed, and the aarch64 wheels are unzipped into Python's path; nothing of this machine's own system is
touched. It runs under qemu-user-static in namespaces of its own (user, mount, processes), where the kernel's
binfmt_misc is mounted privately; this needs Linux 6.7, or a qemu-aarch64 that is registered already, and root.
/tmp and the home folder are empty at every start. Host key, client key, known_hosts and ssh_config are made for every
start, in a folder of that start.
"""

from __future__ import annotations

import compileall
import contextlib
import fcntl
import hashlib
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from ir.errors import OptionError, RuntimeFailure
from tools._command import console, run_command

USER = "pi"
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "dash", "coreutils", "procps", "openssh-server", "libstdc++6")
WHEELS = ("tflite-runtime==2.14.0", "numpy==1.26.4")
PLATFORMS = ("manylinux_2_34_aarch64", "manylinux2014_aarch64")
BINFMT = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
_START_S = 60
COMMANDS = ("qemu-aarch64-static", "ssh", "ssh-keygen", "unshare", "apt-get", "dpkg")

_ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
    f"{USER}:x:1000:1000::/home/{USER}:/bin/sh\n",
    "group": f"root:x:0:\nnogroup:x:65534:\n{USER}:x:1000:\n",
    "shadow": f"root:*:19000::::::\nsshd:*:19000::::::\n{USER}:*:19000::::::\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
}
_SSHD = """\
ListenAddress 127.0.0.1:{port}
HostKey /mnt/host_key
AuthorizedKeysFile /mnt/client_key.pub
AllowUsers {user}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
PidFile none
"""
_SSH = """\
Host *
  IdentityFile "{folder}/client_key"
  IdentitiesOnly yes
  UserKnownHostsFile "{folder}/known_hosts"
  GlobalKnownHostsFile none
"""
# The first process of the new namespaces; with it ends everything in them. $1 the root, $2 what it sees in /mnt,
# $3 the line that registers qemu. Reads a line once the ids are mapped: if that is "held", the input's end ends it all.
_INIT = """\
set -e
echo unshared
read -r mapped
mount --bind "$2" "$1/mnt"
mount -t tmpfs tmpfs "$1/tmp" -o mode=1777
mount -t tmpfs tmpfs "$1/home/pi" -o mode=700,uid=1000,gid=1000
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc" 2>/dev/null || mount --rbind /proc "$1/proc"
if mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc 2>/dev/null; then
  printf %s "$3" > /proc/sys/fs/binfmt_misc/register
fi
chroot "$1" /usr/sbin/sshd -D -e -f /mnt/sshd_config < /dev/null &
if [ "$mapped" = held ]; then read -r until_its_end || exit 0; else wait; fi
"""


class Unavailable(RuntimeFailure):
    """This machine cannot make or run it."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(expected="an emulated Raspberry Pi", found=found, where="tools.raspberry_pi", fix=fix)


def default_cache() -> Path:
    """Where roots are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "intact"


def check() -> None:
    """Raises Unavailable where the machine is known to be no good for it, with the reason."""
    missing = [c for c in COMMANDS if shutil.which(c) is None]
    if missing:
        raise Unavailable(f"no {', '.join(missing)}", "install qemu-user-static, openssh-client, util-linux and apt")
    if os.geteuid():
        raise Unavailable("no root, which maps the ids of the new namespaces", "run as root")
    if "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text():
        raise Unavailable("a system that is not Debian 12, whose packages it is made of", "run on Debian 12")


def root_folder(cache: Path) -> Path:
    """Where the root that this script makes is kept."""
    recipe = "".join(inspect.getsource(f) for f in (_make, _download_packages, _download_wheels))
    recipe += repr((PACKAGES, WHEELS, PLATFORMS, _ACCOUNTS))
    return cache / f"raspberry-pi-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def make(cache: Path) -> Path:
    """The root folder; made if it is not there, by one process at a time. Raises Unavailable."""
    check()
    root = root_folder(cache)
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "raspberry-pi.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix="raspberry-pi-unfinished-") as scratch:
                unfinished = _make(Path(scratch))
                unfinished.rename(root)
    return root


def _make(scratch: Path) -> Path:
    root = scratch / "root"
    for package in _download_packages(scratch):
        _call(["dpkg", "-x", str(package), str(root)], "a package cannot be unpacked")
    python_path = root / "usr/lib/python3/dist-packages"
    for wheel in _download_wheels(scratch):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(python_path)
    if sys.version_info[:2] == (3, 11):  # the emulated one would compile at every start, slowly
        compileall.compile_dir(root / "usr/lib", quiet=2, maxlevels=20, stripdir=root)
    for name, content in _ACCOUNTS.items():
        (root / "etc" / name).write_text(content)
    (root / "usr/bin/python3").symlink_to("python3.11")
    for folder in ("mnt", "proc", "dev", "tmp", "root", "run/sshd", f"home/{USER}"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
    return root


def _download_packages(scratch: Path) -> list[Path]:
    """Debian's packages for arm64 with what they need, by this machine's sources and keys."""
    for folder in ("state/lists/partial", "cache/archives/partial", "sources"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()
    own = [p for p in map(Path, ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")) if p.exists()]
    if not own:
        raise Unavailable("no debian.sources or sources.list in /etc/apt", "add one, with main of Debian 12")
    shutil.copy(own[0], scratch / "sources" / ("own" + (own[0].suffix or ".list")))
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": scratch / "sources",
    }
    apt = ["apt-get", "-q", *(x for key, value in settings.items() for x in ("-o", f"{key}={value}"))]
    _call([*apt, "update"], "apt cannot read its sources for arm64")
    install = ["install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES]
    _call([*apt, *install], "apt cannot download the packages for arm64")
    return sorted((scratch / "cache/archives").glob("*.deb"))


def _download_wheels(scratch: Path) -> list[Path]:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(scratch / "wheels"), "--no-deps"]
    platform = [x for name in PLATFORMS for x in ("--platform", name)]
    kind = ["--python-version=3.11", "--implementation=cp", "--only-binary=:all:"]
    _call([*pip, *platform, *kind, *WHEELS], "pip cannot download the wheels for aarch64")
    return sorted((scratch / "wheels").glob("*.whl"))


def _call(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise Unavailable(f"that {failure} ({lines[-1]})", "see whether this machine reaches its package sources")


@dataclass(frozen=True, kw_only=True)
class Board:
    """A running one.

    Attributes:
      folder: of this start: keys, known_hosts, ssh_config, the log of its sshd.
      pid: of the process that holds it: with that one ends everything.
    """

    folder: Path
    port: int
    pid: int

    @property
    def runtime(self) -> str:
        """Its name for `--runtime`."""
        return f"ssh://{USER}@127.0.0.1:{self.port}?config={self.folder / 'ssh_config'}"


def start(root: Path, folder: Path, *, held: bool = True) -> Board:
    """Starts a board; what belongs to this start is written in `folder`. Raises Unavailable if it does not answer.

    A board that is held ends with this process; others go on until `stop`.
    """
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _write_settings(folder, port)
    registration = next(x for x in BINFMT.read_text().splitlines() if x.startswith(":")).rpartition(":")[0] + ":FP"
    command = ["unshare", "--user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _INIT, "sh"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [*command, str(root), str(folder / "board"), registration],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    _HELD[process.pid] = process
    board = Board(folder=folder, port=port, pid=process.pid)
    try:
        try:
            if process.stdout.readline():
                for kind in ("uid_map", "gid_map"):
                    Path(f"/proc/{process.pid}/{kind}").write_text("0 0 65536")
            process.stdin.write(b"held\n" if held else b"free\n")
            process.stdin.flush()
        except OSError as error:
            process.kill()
            process.wait()
            (folder / "log").write_text((folder / "log").read_text() or str(error))  # what it said itself is better
        _wait_until_it_answers(board, process)
    except BaseException:
        stop(board)
        raise
    return board


_HELD: dict[int, subprocess.Popen] = {}  # the boards that this process started; a pipe that is closed ends a held one


def stop(board: Board) -> None:
    """Ends all its processes."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(board.pid, signal.SIGKILL)
    process = _HELD.pop(board.pid, None)
    if process is not None:
        process.communicate()


def _write_settings(folder: Path, port: int) -> None:
    """The client's side in `folder`, the board's side in `folder/board`, which it sees as /mnt."""
    board = folder / "board"
    board.mkdir(mode=0o755)
    for key in (board / "host_key", folder / "client_key"):
        _call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key.name, "-f", str(key)], "no key is made")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(board / 'host_key.pub').read_text()}")
    (folder / "ssh_config").write_text(_SSH.format(folder=folder))
    shutil.copy(folder / "client_key.pub", board)
    (board / "sshd_config").write_text(_SSHD.format(port=port, user=USER))


def _wait_until_it_answers(board: Board, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", board.port), timeout=5) as connection:
            connection.settimeout(10)
            if connection.recv(4) == b"SSH-":
                return
        time.sleep(0.1)
    words = (board.folder / "log").read_text(errors="replace").strip().splitlines() or ["it does not answer"]
    raise Unavailable(
        f"that its processes cannot run here ({words[-1]})",
        "allow user namespaces and binfmt_misc in them (Linux 6.7), or register qemu-aarch64",
    )


@contextlib.contextmanager
def running(cache: Path | None = None) -> Iterator[Board]:
    """A board for as long as it is needed. Raises Unavailable where there can be none."""
    root = make(cache or default_cache())
    with tempfile.TemporaryDirectory(prefix="raspberry-pi-") as folder:
        board = start(root, Path(folder))
        try:
            yield board
        finally:
            stop(board)


FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_string("cache", None, "Where its root folder is kept; ~/.cache/intact by default.")


def main(arguments: list[str]) -> None:
    """Starts or stops the one board that this command keeps for a cache."""
    cache = Path(FLAGS.cache).resolve() if FLAGS.cache else default_cache()
    folder = cache / "raspberry-pi-started"
    if arguments not in (["start"], ["stop"]):
        raise OptionError(
            expected="start or stop", found=" ".join(arguments) or "neither", where="the command", fix="say one"
        )
    running_one = _started(folder)
    if running_one is not None:
        stop(running_one)
    shutil.rmtree(folder, ignore_errors=True)
    if arguments == ["stop"]:
        console.print("stopped" if running_one else "there was none")
        return
    root = make(cache)
    folder.mkdir(mode=0o700)
    board = start(root, folder, held=False)
    (folder / "board.json").write_text(json.dumps({"pid": board.pid, "port": board.port}))
    console.print(board.runtime, soft_wrap=True)


def _started(folder: Path) -> Board | None:
    """The board that was started there, if its process still runs."""
    try:
        known = json.loads((folder / "board.json").read_text())
        arguments = Path(f"/proc/{known['pid']}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return Board(folder=folder, **known) if os.fsencode(folder / "board") in arguments else None


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main, positional=True)


if __name__ == "__main__":
    run()
