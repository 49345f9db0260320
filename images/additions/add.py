"""Adds a policy's packages to an image, or says what they come to; runs in the build.

The build of `images/additions` calls it as root, isolated from all that is installed. It prints the
lock, a line for each package, and puts what is new into /tree. Packages of the index come as wheels
only, so none of their code runs here; maintainers' scripts of Debian packages do.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

BUILD, TREE = Path("/build"), Path("/tree")
DEBS = BUILD / "debs"
NOT_COPIED = ("build", "tree", "proc", "sys", "dev", "run", "tmp", "workspace", "root")
NOT_COPIED_BELOW = ("var/cache", "var/log", "var/lib/apt")
APT = (
    *("apt-get", "--quiet=2", "--yes", "--no-install-recommends", "--no-remove"),
    *("-o", f"Dir::Cache::archives={DEBS}"),
)
PIP = (
    *(
        sys.executable,
        "-I",
        "-m",
        "pip",
        "install",
        "--progress-bar=off",
        "--no-cache-dir",
        "--no-input",
    ),
    *("--only-binary=:all:", "--root-user-action=ignore", "--disable-pip-version-check"),
)


def main() -> None:
    TREE.mkdir()
    lists = json.loads((BUILD / "lists.json").read_text())
    locked = [line.split() for line in (BUILD / "lock.txt").read_text().splitlines()]
    pip = [words[1:] for words in locked if words[:1] == ["pip"]]
    apt = [words[1:] for words in locked if words[:1] == ["apt"]]
    # Debian first: its scripts may run Python, which must not find anything of the index then.
    if lists["apt"]:
        debs(lists["apt"], apt if locked else None)
    if lists["pip"]:
        wheels(lists["pip"], pip if locked else None)
    run("find", str(TREE), "-perm", "/6000", "-exec", "chmod", "ug-s", "{}", "+")


def debs(names: list[str], locked: list[list[str]] | None) -> None:
    """Download the packages and tell them, or install those of the lock and no others."""
    run("apt-get", "--quiet=2", "update")
    known = set(run("apt-cache", "pkgnames").split())
    for name in names:
        if name not in known:
            fail(f"apt: there is no Debian package {name!r}")
    (DEBS / "partial").mkdir(parents=True)
    shutil.chown(DEBS / "partial", "_apt")
    wanted = names if locked is None else [pin for pin, _ in locked]
    if not wanted:
        return
    run(*APT, "install", "--download-only", *wanted)
    form = "${Package}=${Version}"
    found = {
        run("dpkg-deb", "--show", f"--showformat={form}", str(deb)): file_digest(deb)
        for deb in sorted(DEBS.glob("*.deb"))
    }
    if locked is None:
        for pin, digest in found.items():
            tell("apt", pin, digest)
        return
    if found != {pin: digest.removeprefix("sha256:") for pin, digest in locked}:
        fail("apt: the Debian packages of the lock are not those that there are now")
    marker = BUILD / "marker"
    marker.touch()
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(*APT, "install", "--no-download", *wanted)
    listed = Path("/usr/local/share/debian-packages.txt")
    listed.write_text(run("dpkg-query", "--show"))
    copy_newer(marker)


def copy_newer(marker: Path) -> None:
    """Copy what has changed since, with its folders as they are."""
    pruned = [f"/{place}" for place in (*NOT_COPIED, *NOT_COPIED_BELOW)]
    tests = [word for place in pruned for word in ("-path", place, "-prune", "-o")]
    changed = run(
        *("find", "/", "-xdev", *tests, "-cnewer", str(marker)),
        *("(", "!", "-type", "d", "-o", "-empty", ")", "-print0"),
    )
    kept = "--preserve=mode,ownership,timestamps,links"
    copying = ("cp", "--parents", "--no-dereference", "--recursive", kept)
    run("xargs", "--null", "--no-run-if-empty", *copying, "-t", str(TREE), given=changed)


def wheels(requirements: list[str], locked: list[list[str]] | None) -> None:
    """Tell what the requirements come to, or install what the lock says."""
    freeze = (sys.executable, "-I", "-m", "pip", "list", "--format=freeze")
    installed = run(*freeze, "--disable-pip-version-check")
    if locked is None:
        base, report = BUILD / "base.txt", BUILD / "report.json"
        base.write_text(installed)
        resolve = ("--dry-run", "--report", str(report), "--constraint", str(base))
        run(*PIP, *resolve, "--", *requirements)
        for found in json.loads(report.read_text())["install"]:
            about, digests = found["metadata"], found["download_info"]["archive_info"]["hashes"]
            tell("pip", f"{about['name']}=={about['version']}", digests["sha256"])
        return
    here = {normalized(pin): pin for pin in installed.split()}
    for pin, _ in locked:
        if (found := here.get(normalized(pin), pin)) != pin:
            fail(f"pip: the lock has {pin}, and the image has {found} now; --force looks anew")
    locked = [words for words in locked if normalized(words[0]) not in here]
    if not locked:
        return
    pins = BUILD / "pins.txt"
    pins.write_text("".join(f"{pin} --hash={digest}\n" for pin, digest in locked))
    run(
        *(*PIP, "--root", str(TREE), "--no-deps", "--no-compile", "--no-warn-script-location"),
        *("--require-hashes", "--requirement", str(pins)),
    )
    # Without site, so that no .pth file of these packages is followed.
    compiling = ("-m", "compileall", "-qq", "-j", "0", "--invalidation-mode", "unchecked-hash")
    subprocess.run(
        [sys.executable, "-I", "-S", *compiling, "-s", str(TREE), str(TREE / "usr/local/lib")],
        check=False,
    )


def normalized(pin: str) -> str:
    return re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower()


def tell(kind: str, pin: str, digest: str) -> None:
    print(f"sandbox-lock: {kind} {pin} sha256:{digest}", flush=True)


def file_digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def run(*command: str, given: str = "") -> str:
    """What a program prints; the build ends when it fails.

    Why packages cannot be had is told in one line, for it is the policy that is wrong then.
    """
    done = subprocess.run(
        command,
        cwd="/",
        capture_output=True,
        text=True,
        input=given,
        errors="surrogateescape",
        check=False,
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", flush=True)
        if "install" in command:
            fail(cause("pip" if "pip" in command else "apt", done.stdout + done.stderr))
        sys.exit(1)
    return done.stdout


def cause(program: str, told: str) -> str:
    """The line of a program's errors that says why."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    errors = [
        re.sub(r"^(ERROR|E): *", "", line) for line in lines if line.startswith(("ERROR:", "E:"))
    ]
    # What pip finds in conflict stands between its first error and its last, a line for each side.
    sides = [line for line in lines if re.match(r"(The user requested|\S+ \S+ depends on) ", line)]
    chosen = errors[-1] if errors else (lines or ["it failed"])[-1]
    if sides:
        chosen = f"these are in conflict: {'; '.join(dict.fromkeys(sides[:4]))}"
    return f"{program}: {chosen}"


def fail(why: str) -> None:
    print(f"sandbox-failed: {why[:500]}", flush=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
