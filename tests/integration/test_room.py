"""What code finds around it in a session: a name, a home, the machine's name, git and tools."""

from __future__ import annotations

import pytest

from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from ..support.controllers import ended, run, shell, text_of
from ..support.served import RUNTIME

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session(manager: SessionManager) -> Session:
    return await manager.open(Caller("alice"))


async def said(session: Session, command: str) -> str:
    """What a command writes; it must not fail."""
    done = await shell(session, command)
    assert done.exit_code == 0, done.stderr
    return done.stdout


async def test_the_uid_has_a_name_and_a_home(session: Session) -> None:
    command = "whoami; id -un; id -gn; find . -maxdepth 0 -printf '%u %g\\n'; echo ~ ~sandbox"
    names = ["sandbox", "sandbox", "sandbox", "sandbox sandbox", "/workspace /workspace"]
    assert (await said(session, command)).splitlines() == names
    code = (
        "import getpass, grp, os, pathlib, pwd\n"
        "mine = pwd.getpwuid(os.getuid())\n"
        "assert pwd.getpwnam('sandbox') == mine and mine.pw_gid == os.getgid()\n"
        "print(mine.pw_name, mine.pw_dir, mine.pw_shell, grp.getgrgid(os.getgid()).gr_name)\n"
        "print(getpass.getuser(), pathlib.Path.home(), pathlib.Path('.').owner())"
    )
    assert text_of(await run(session, code)).splitlines() == [
        "sandbox /workspace /bin/bash sandbox",
        "sandbox /workspace sandbox",
    ]


@pytest.mark.skipif(RUNTIME == "runsc", reason="Debian's gVisor knows no flag that ls sets")
async def test_a_listing_names_the_owner(session: Session) -> None:
    assert await said(session, "touch made && ls -l made | cut -d' ' -f3,4") == "sandbox sandbox\n"


async def test_a_prompt_can_show_the_users_name(session: Session) -> None:
    assert await said(session, r"""x='\u@\h'; echo "${x@P}" """) == "sandbox@sandbox\n"


async def test_the_name_stays_without_the_variables(session: Session) -> None:
    assert await said(session, "env -i /usr/bin/whoami") == "sandbox\n"


async def test_two_sessions_have_one_name_and_two_uids(
    manager: SessionManager, session: Session
) -> None:
    other = await manager.open(Caller("bob"))
    told = [(await said(one, "id -u; id -un")).split() for one in (session, other)]
    assert {name for _, name in told} == {"sandbox"}
    assert len({uid for uid, _ in told}) == 2


async def test_the_machines_own_name_is_its_loopback(session: Session) -> None:
    code = (
        "import socket\n"
        "own = socket.gethostbyname(socket.gethostname())\n"
        "with socket.create_server((own, 0)) as server:\n"
        "    address = (socket.gethostname(), server.getsockname()[1])\n"
        "    socket.create_connection(address, 5).close()\n"
        "print(own.split('.')[0], socket.getfqdn() != '')"
    )
    result = await run(session, code)
    assert text_of(result) == "127 True\n", result.outputs


async def test_a_server_at_the_machines_name_is_not_sought_behind_the_proxy(
    session: Session,
) -> None:
    code = (
        "import http.server, socket, threading, urllib.request\n"
        "name = socket.gethostname()\n"
        "server = http.server.HTTPServer((name, 0), http.server.SimpleHTTPRequestHandler)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "for host in (name, socket.gethostbyname(name)):\n"
        "    with urllib.request.urlopen(f'http://{host}:{server.server_port}/') as answer:\n"
        "        print(answer.status)"
    )
    result = await run(session, code)
    answers = [one.strip() for one in text_of(result).splitlines() if one.strip() == "200"]
    assert len(answers) == 2, result.outputs


async def test_a_name_elsewhere_fails_at_once(session: Session) -> None:
    code = (
        "import socket\n"
        "try: socket.gethostbyname('example.org')\n"
        "except socket.gaierror as exc: print('gaierror')"
    )
    assert text_of(await run(session, code)) == "gaierror\n"


async def test_git_commits_and_never_waits_for_a_person(session: Session) -> None:
    command = """
        set -e
        git init -q made && cd made && echo hi > file && git add file
        git commit -qm first && git commit -q --amend && git log --format='%an %ae %s %D'
        git checkout -qb other && git commit -q --allow-empty -m second
        git checkout -q main && git commit -q --allow-empty -m third
        git merge -q other && git log --merges --format=%s
        git commit --allow-empty 2>&1 || echo refused
    """
    told = (await said(session, command)).splitlines()
    assert told[0] == "sandbox sandbox@localhost first HEAD -> main"
    assert told[1] == "Merge branch 'other'"
    assert told[-1] == "refused"


async def test_git_works_in_a_folder_of_another_owner(session: Session) -> None:
    assert await said(session, "git config --system safe.directory") == "*\n"


async def test_text_is_utf_8_and_time_is_utc(session: Session) -> None:
    code = (
        "import datetime, locale, sys, time, zoneinfo\n"
        "print(locale.getpreferredencoding(), sys.getfilesystemencoding(), time.tzname[0])\n"
        "there = datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo('Asia/Tokyo'))\n"
        "print(there.utcoffset())"
    )
    assert text_of(await run(session, code)) == "UTF-8 utf-8 UTC\n9:00:00\n"
    assert await said(session, "date +%Z") == "UTC\n"
    terminals = 'echo "$PAGER $GIT_PAGER $EDITOR $GIT_EDITOR $GIT_TERMINAL_PROMPT"'
    assert await said(session, terminals) == "cat cat vim true 0\n"


async def test_the_usual_tools_work(session: Session) -> None:
    command = r"""
        set -e
        printf 'one\n' > a && printf 'two\n' > b
        diff -u a b > change || true
        patch -s a change && cat a
        zip -q both.zip a b && unzip -qc both.zip b
        file --brief a
        echo '{"x": [1, 2]}' | jq -c .x
        printf 'all:\n\t@echo made\n' > Makefile && make -s
        sqlite3 :memory: 'select 6 * 7'
        rg --no-filename tw b
        mkdir folder && tree --noreport folder
        printf 'paged\n' | less
        ps -o user= -p $$
    """
    assert (await said(session, command)).splitlines() == [
        *("two", "two", "ASCII text", "[1,2]", "made", "42", "two", "folder", "paged", "sandbox")
    ]


MAKEFILE = "all:\n\techo hi\n"


async def test_a_tab_in_a_bash_cell_arrives_as_it_is_written(session: Session) -> None:
    heredoc = f"cat > {{}} <<'EOF'\n{MAKEFILE}EOF"
    async with session.use():
        bash = await session.kernels.start("bash")
        cell = await session.kernels.execute(heredoc.format("one"), kernel_id=bash.kernel_id)
    await ended(cell)
    await run(session, "%%bash\n" + heredoc.format("two"))
    assert await said(session, "cat one two") == MAKEFILE * 2


# --- how large it is: docs/adr/0014

OWN_BYTES = 1024**3


@pytest.mark.skipif(RUNTIME == "runsc", reason="gVisor tells of its own room too, docs/policies.md")
async def test_programs_see_the_sessions_own_memory(session: Session) -> None:
    code = (
        "import os, psutil\n"
        "print(psutil.virtual_memory().total)\n"
        "print(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))"
    )
    assert text_of(await run(session, code)).split() == [str(OWN_BYTES), str(OWN_BYTES)]
    # A program without the variables, and a shell's own reading.
    assert await said(session, "env -i free -b | awk '/^Mem/ {print $2}'") == f"{OWN_BYTES}\n"
    assert await said(session, "read -r _ kib _ < /proc/meminfo; echo $kib") == "1048576\n"


@pytest.mark.skipif(RUNTIME == "runsc", reason="gVisor has its own figures")
async def test_the_memory_that_programs_see_is_what_is_left_now(session: Session) -> None:
    code = (
        "import os, psutil\n"
        "def left(): return psutil.virtual_memory().available\n"
        "before = left(); held = os.urandom(1) * (200 << 20)\n"
        "taken = before - left(); del held\n"
        "file = open('/tmp/filled', 'wb'); file.write(bytes(100 << 20)); file.flush()\n"
        "filled = before - left(); file.close(); os.unlink('/tmp/filled')\n"
        "print(taken >> 20, filled >> 20, (before - left()) >> 20)"
    )
    taken, filled, after = map(int, text_of(await run(session, code)).split())
    assert 180 <= taken <= 240
    assert 80 <= filled <= 140
    assert after <= 40


async def test_programs_see_the_sessions_own_processors(session: Session) -> None:
    code = (
        "import multiprocessing, os\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "print(os.cpu_count(), multiprocessing.cpu_count(), ProcessPoolExecutor()._max_workers)"
    )
    assert text_of(await run(session, code)) == "1 1 1\n"
    assert await said(session, "nproc; getconf _NPROCESSORS_ONLN") == "1\n1\n"
    assert await said(session, "grep -c ^processor /proc/cpuinfo") == "1\n"
    threads = "echo $OMP_NUM_THREADS $RAYON_NUM_THREADS $GOMAXPROCS $POLARS_MAX_THREADS"
    assert await said(session, threads) == "1 1 1 1\n"


async def test_what_is_told_of_the_limits_is_read_and_not_written(session: Session) -> None:
    code = (
        "import errno, os\n"
        "for path in ('/proc/meminfo', '/proc/cpuinfo', '/etc/ld.so.preload'):\n"
        "    try: os.close(os.open(path, os.O_WRONLY)); print(path)\n"
        "    except OSError as exc: assert exc.errno in (errno.EACCES, errno.EROFS), exc\n"
        "with open('/proc/meminfo', 'rb') as one, open('/proc/meminfo') as two:\n"
        "    assert one.seek(4) == 4 and two.readline().startswith('MemTotal:')\n"
        "print('done')"
    )
    assert text_of(await run(session, code)) == "done\n"
