"""Where the runs of a sweep go on: processes of this machine, or workers of a Dask cluster."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import SDDError
from .attempts import attend, stop

CONNECT = 15  # seconds to wait for a scheduler, and for its first worker


@dataclass(frozen=True)
class Pool:
    """submit: a job -> the future of `attempts.attend`; stop: end these attempts; at_once: jobs to submit before the first
    ends; share: runs that share the cores of a machine; trouble: a sentence while nothing can go on, or ""."""

    submit: Callable[[dict], Future]
    stop: Callable[[list[str]], object]
    at_once: int
    share: int
    trouble: Callable[[], str] = str


@contextmanager
def local_pool(jobs: int) -> Iterator[Pool]:
    """`jobs` processes of this machine at a time."""
    with ThreadPoolExecutor(jobs) as threads:
        yield Pool(partial(threads.submit, attend), stop, jobs, jobs)


@contextmanager
def dask_pool(address: str, folder: Path, at_once: int) -> Iterator[Pool]:
    """The workers of the Dask scheduler at an address; one run a worker thread. folder: must be seen by all of them."""
    client = _connect(address)
    try:
        _check_workers(client, folder)
        hosts: Counter = Counter()
        for worker, threads in client.nthreads().items():
            hosts[worker.rpartition(":")[0]] += threads
        executor = client.get_executor(pure=False)

        def end(attempts: list[str]) -> None:
            with suppress(OSError):  # the scheduler is gone: its workers close, which ends what they run
                client.run(stop, attempts, on_error="ignore")

        def trouble() -> str:
            return "" if client.nthreads() else f"the scheduler at {address} has no worker left; waiting for one"

        yield Pool(partial(executor.submit, attend), end, at_once, max(hosts.values()), trouble)
    finally:
        client.close()


def _connect(address: str):
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError:
        raise SDDError(
            '--scheduler needs Dask, which is not installed: python -m pip install "distributed", or -e ".[scale]"'
        ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # tracebacks of connections; the sweep says what they mean
    try:
        get_address_host_port(address)  # first: a client that was never whole takes half a minute to go
        client = Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError, asyncio.TimeoutError) as e:
        said = " ".join(str(e).split())
        raise SDDError(f"no Dask scheduler answers at {address!r} ({said}); start one with `dask scheduler`") from None
    try:
        client.wait_for_workers(1, timeout=CONNECT)
    except asyncio.TimeoutError:
        client.close()
        raise SDDError(f"the scheduler at {address} has no workers; start some with `dask worker {address}`") from None
    return client


def sees(folder: str) -> bool:
    """Asked of every worker: does this machine have the folder?"""
    return Path(folder).is_dir()


def _check_workers(client, folder: Path) -> None:
    try:
        answers = client.run(sees, str(folder))
    except Exception as e:  # the worker's own: most likely it cannot import sddlib
        raise SDDError(f"a Dask worker cannot run sddlib ({type(e).__name__}: {e}); install this repository there") from None
    if blind := [worker for worker, answer in answers.items() if not answer]:
        raise SDDError(f"the Dask worker {blind[0]} does not see {folder}; workers need it on a shared disk, at the same path")
