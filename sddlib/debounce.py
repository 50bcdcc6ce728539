"""Answer a hand that moves a slider once it rests, and not every step on its way."""

import asyncio
from collections.abc import Awaitable, Callable


class Debounced:
    """Calls `job` when nothing has asked for it for `delay` seconds; a later call stops an earlier one, at once while it
    waits, and at its next `await` when it runs. Needs a running event loop, as a notebook's kernel has one."""

    def __init__(self, job: Callable[[], Awaitable[None]], delay: float):
        self.job, self.delay, self.task = job, delay, None

    def __call__(self) -> None:
        if self.task is not None:
            self.task.cancel()
        self.task = asyncio.get_running_loop().create_task(self._later())
        self.task.add_done_callback(lambda task: task.cancelled() or task.result())  # a mistake is heard of at once

    async def _later(self) -> None:
        await asyncio.sleep(self.delay)
        await self.job()
