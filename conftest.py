"""Whatever pytest runs, notebooks included, runs on the smallest profile, on this machine alone."""

import os

from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("SDDLIB_PROFILE", "smoke")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")  # kernels of nbval have no page to draw bars on
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes with two threads each would wait for one another

# What takes longest, first: a long file that came last would keep one process at work while the other has nothing to do. While
# one is at the notebooks, the other begins with the smoke run, which both then share.
LONG = ("notebooks", "test_notebooks.py", "test_parallel.py", "test_sweeps.py", "test_resume.py", "test_bench.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(name) if (name := _unit(item.path.name)) in LONG else len(LONG))


def _unit(name):
    return "notebooks" if name.endswith(".ipynb") else name


class FilesAndNotebooks(LoadFileScheduling):
    """A test file is one process's; so are all notebooks together, since each reads what the one before it wrote."""

    def _split_scope(self, nodeid):
        return _unit(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # the order above, not that of the numbers of tests
    return FilesAndNotebooks(config, log)
