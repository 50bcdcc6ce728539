"""Whatever pytest runs, notebooks included, runs on the smallest profile, on this machine alone."""

import os

from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("SDDLIB_PROFILE", "smoke")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")  # kernels of nbval have no page to draw bars on
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes with two threads each would wait for one another


class FilesAndNotebooks(LoadFileScheduling):
    """A test file is one process's; so are all notebooks together, since each reads what the one before it wrote."""

    def _split_scope(self, nodeid):
        name = super()._split_scope(nodeid)
        return "notebooks" if name.endswith(".ipynb") else name


def pytest_xdist_make_scheduler(config, log):
    return FilesAndNotebooks(config, log)
