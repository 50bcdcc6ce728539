"""Whatever pytest runs, notebooks included, runs on the smallest profile, on this machine alone."""

import os

os.environ.setdefault("SDDLIB_PROFILE", "smoke")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
