"""What many callers at once get, and what many sessions cost: with lean clients, over HTTP.

Everything (clients, controller, engine, kernels) shares the machine's processors.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

import anyio
import anyio.to_thread
import psutil

from benchmarks.crowd import (
    READY,
    House,
    Seat,
    connected,
    house,
    leave,
    seat,
    seats,
    together,
)
from benchmarks.measures import call, check
from benchmarks.report import Figure, spread

CELL = "1+1"
POOL = 20
SESSIONS = 200
BUSY = 50
"""Sessions whose executions are counted."""
RATE_S = 8.0
IDLE_S = 20.0
FILLED_S = 60.0
TURN = 40
"""Cells in one session, or in many, between two looks at the other."""


async def load(image: str) -> list[Figure]:
    """The section's figures, of two controllers: one with a pool, and one without."""
    return [
        *await anyio.to_thread.run_sync(with_a_pool, image),
        *await anyio.to_thread.run_sync(with_many),
    ]


# --- opening


def with_a_pool(image: str) -> list[Figure]:
    """What it is to open a session when there are some ready."""
    with house(ready=POOL) as found:
        filled(found)
        return [*opens(found), at_once(found), sustained(found, image)]


def filled(house: House, least: int = POOL) -> float:
    """Wait until so many sandboxes are ready; how long that took, in seconds."""
    began = time.monotonic()
    while (shelf := house.shelf(READY)).get("ready", 0) < least:
        check(time.monotonic() < began + FILLED_S, f"the pool does not fill: {shelf}")
        time.sleep(0.1)
    return time.monotonic() - began


def opens(house: House, rounds: int = 4) -> list[Figure]:
    """Open one session after another while some are ready, each with a first result."""
    took: list[float] = []
    results: list[float] = []
    for _ in range(rounds):
        filled(house)
        taken: list[Seat] = []
        for number in range(POOL - 2):
            caller = house.caller(number)
            client = connected(caller)
            start = time.perf_counter()
            taken.append(seat(caller, READY, client))
            took.append(time.perf_counter() - start)
            taken[-1].run(CELL)
            results.append(time.perf_counter() - start)
        leave(taken)
    p99 = 1000 * statistics.quantiles(took, n=100)[98]
    return [
        Figure("open, warm", 1000 * statistics.median(took), "ms", 8, True, spread(took)),
        Figure("open, warm, 99th percentile", p99, "ms", 30, True, f"n={len(took)}"),
        Figure(
            "open → first result, warm",
            1000 * statistics.median(results),
            "ms",
            12,
            True,
            spread(results),
        ),
    ]


def at_once(house: House, rounds: int = 3) -> Figure:
    """As many opens at once as sandboxes are ready, until the last is answered."""
    took: list[float] = []
    for _ in range(rounds):
        filled(house)
        callers = [house.caller(number) for number in range(POOL)]
        works = [partial(seat, caller, READY, connected(caller)) for caller in callers]
        start = time.perf_counter()
        taken = together(works)
        took.append(time.perf_counter() - start)
        leave(taken)
    value = statistics.median(took)
    return Figure(f"{POOL} opens at once, a pool of {POOL}", value, "s", 0.5, True, spread(took))


def sustained(house: House, image: str, seconds: float = 8.0) -> Figure:
    """Programs that each get a sandbox of their own, against ``docker run IMAGE true``, each with
    the number of workers that is best for it, in turns."""
    command = ["docker", "run", "--rm", "--network", "none", image, "true"]

    def bare(_number: int) -> None:
        subprocess.run(command, check=True, capture_output=True)

    def ours(number: int) -> None:
        taken = seat(house.caller(number), READY)
        taken.run(CELL)
        taken.close()

    engine: dict[int, float] = {}
    programs: dict[int, float] = {}
    for workers in (2, 4):
        engine[workers] = rate(bare, workers, seconds / 2)
        programs[workers] = rate(ours, workers, seconds)
    best, most = max(engine.values()), max(programs.values())
    detail = "; ".join(
        f"{workers} workers: ours {programs[workers]:.1f} /s, docker run {engine[workers]:.1f} /s"
        for workers in engine
    )
    name = "fresh sandbox per program / docker run"
    return Figure(name, most / best, "×", 0.6, False, detail)


def rate(work: Callable[[int], object], workers: int, seconds: float) -> float:
    """How often a second so many workers do this, each again and again."""
    numbers, end = count(), time.monotonic() + seconds

    def worker() -> int:
        done = 0
        while time.monotonic() < end:
            work(next(numbers))
            done += 1
        return done

    began = time.monotonic()
    done = sum(together([worker] * workers))
    return done / (time.monotonic() - began)


# --- many sessions


def with_many() -> list[Figure]:
    """What many live sessions cost, and how much they do."""
    with house() as found:
        taken = seats(found, BUSY)
        for each in taken:
            each.run(CELL)
        busiest = executions_a_second(found, taken)
        taken += seats(found, SESSIONS - BUSY)
        for each in taken:
            each.run(CELL)
        idle = idle_share(found.pid)
        beside = one_beside(taken)
        leave(taken)
    return [busiest, beside, idle]


def executions_a_second(house: House, taken: Sequence[Seat]) -> Figure:
    """Executions a second over many sessions, each of which has a client that calls again as soon
    as it is answered; and the same with the official client."""
    lean, said = busy(house, taken, RATE_S)
    official, told = anyio.run(officially, house, taken, RATE_S / 2)
    detail = f"{said}; official clients {official:.0f} /s ({told})"
    return Figure(f"executions over {len(taken)} sessions", lean, "/s", 400, False, detail)


def busy(house: House, taken: Sequence[Seat], seconds: float) -> tuple[float, str]:
    """Executions a second, and in words what processor time each took."""
    times: list[float] = []
    before, began = processor_s(house.pid), time.monotonic()
    own = time.process_time()
    end = began + seconds

    def client(each: Seat) -> None:
        while (start := time.monotonic()) < end:
            each.run(CELL)
            times.append(time.monotonic() - start)

    together([partial(client, each) for each in taken])
    took, done = time.monotonic() - began, len(times)
    controller, own = processor_s(house.pid) - before, time.process_time() - own
    said = (
        f"{spread(times)}; controller {1000 * controller / done:.2f} ms of processor time each "
        f"({controller / took:.2f} of a core), clients {1000 * own / done:.2f} ms"
    )
    return done / took, said


async def officially(house: House, taken: Sequence[Seat], seconds: float) -> tuple[float, str]:
    """The same with official clients, all in this process."""
    done = inside = 0
    begin = anyio.Event()
    before, began = 0.0, time.monotonic()

    async def client(each: Seat) -> None:
        nonlocal done, inside, before, began
        async with each.caller.client() as client:
            # The first call has the client load and compile what it checks results with.
            await call(client, "execute_code", code=CELL, session_id=each.session_id)
            inside += 1
            if inside == len(taken):
                before, began = processor_s(house.pid), time.monotonic()
                begin.set()
            await begin.wait()
            while time.monotonic() < began + seconds:
                told = await call(client, "execute_code", code=CELL, session_id=each.session_id)
                check(told["status"] == "ok", told)
                done += 1
            # To leave costs something too: all leave when all have ended.
            inside -= 1
            if not inside:
                over.set()
            await over.wait()

    over = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for each in taken:
            tasks.start_soon(client, each)
        await over.wait()
        took = time.monotonic() - began
        used_s = processor_s(house.pid) - before
    return done / took, f"controller {used_s / took:.2f} of a core"


def one_beside(taken: Sequence[Seat], turns: int = 5) -> Figure:
    """A cell in one session of a controller that has no other, and in one of many, in turns."""
    with house() as alone:
        (single,) = seats(alone, 1)
        single.run(CELL)
        one: list[float] = []
        same: list[float] = []
        others: list[float] = []
        for turn in range(turns):
            one += cells([single] * TURN)
            same += cells([taken[0]] * TURN)
            others += cells([taken[(turn * TURN + n) % len(taken)] for n in range(TURN)])
        single.close()
    value = statistics.median(same) / statistics.median(one)
    each = statistics.median(others) / statistics.median(one)
    detail = (
        f"one {spread(one)}; one of {len(taken)} {spread(same)}; "
        f"in another session each time {spread(others)}, {each:.2f} ×"
    )
    name = f"execution with {len(taken)} live sessions / with one"
    return Figure(name, value, "×", 1.1, True, detail)


def cells(taken: Sequence[Seat]) -> list[float]:
    """Run a cell in each of these sessions, one after the other."""
    times: list[float] = []
    for each in taken:
        start = time.perf_counter()
        each.run(CELL)
        times.append(time.perf_counter() - start)
    return times


def idle_share(pid: int, seconds: float = IDLE_S) -> Figure:
    """What the controller takes of one core while nobody calls."""
    time.sleep(3)  # until what the last calls began is over
    before = processor_s(pid)
    time.sleep(seconds)
    value = (processor_s(pid) - before) / seconds
    detail = f"the controller, for {seconds:g} s"
    return Figure(f"{SESSIONS} idle sessions", value, "of a core", 0.05, True, detail)


def processor_s(pid: int) -> float:
    """The processor time of a process so far, in seconds."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
