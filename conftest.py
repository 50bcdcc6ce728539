"""Whatever pytest runs, notebooks included, runs on the smallest profile, on this machine alone."""

import os

os.environ.setdefault("SDDLIB_PROFILE", "smoke")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes with two threads each would wait for one another
