"""The wheel of the installation: packed again from its list of files, or built from a checkout."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from mlworkbench.errors import DeploymentError
from mlworkbench.operate.ship import wheel
from mlworkbench.operate.ship.wheel import build_wheel, pack_wheel, repack_wheel


def install(folder: Path, *, name: str = "late") -> metadata.Distribution:
    """Install a small distribution as pip does, and give it."""
    info = folder / f"{name}-1.0.dist-info"
    (folder / name / "__pycache__").mkdir(parents=True)
    info.mkdir()
    files = {f"{name}/__init__.py": "x = 1\n", f"{name}/data.txt": "ä\n", f"{name}/__pycache__/x.pyc": "no"}
    files |= {f"{info.name}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"}
    files |= {f"{info.name}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    files |= {f"{info.name}/INSTALLER": "pip\n", f"{info.name}/direct_url.json": "{}"}
    for path, text in files.items():
        (folder / path).write_text(text, encoding="utf-8")
    record = [f"{path},," for path in [*files, f"../../bin/{name}", f"{info.name}/RECORD"]]
    (info / "RECORD").write_text("\n".join(record) + "\n")
    return metadata.Distribution.at(info)


def test_an_installed_distribution_is_packed_as_the_wheel_that_it_came_out_of(tmp_path: Path) -> None:
    name, data = repack_wheel(install(tmp_path))
    archive = zipfile.ZipFile(io.BytesIO(data))
    info = "late-1.0.dist-info"
    assert name == "late-1.0-py3-none-any.whl"
    wanted = {"late/__init__.py", "late/data.txt", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD"}
    assert set(archive.namelist()) == wanted
    for line in archive.read(f"{info}/RECORD").decode().splitlines():
        path, digest, size = line.split(",")
        if path.endswith("RECORD"):
            continue
        held = archive.read(path)
        assert len(held) == int(size)
        assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(held).digest()).rstrip(b"=").decode()


def test_pip_installs_what_was_packed(tmp_path: Path) -> None:
    name, data = repack_wheel(install(tmp_path / "from"))
    (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", tmp_path / "to"]
    subprocess.run([*command, tmp_path / name], check=True, capture_output=True)
    assert (tmp_path / "to/late/data.txt").read_text(encoding="utf-8") == "ä\n"


def test_equal_files_make_equal_wheels() -> None:
    files = {"a.py": b"1", "b.py": b"2"}
    assert pack_wheel(files, "a-1.dist-info") == pack_wheel(dict(reversed(files.items())), "a-1.dist-info")


def test_a_missing_file_and_an_installation_without_a_list_are_one_line(tmp_path: Path) -> None:
    held = install(tmp_path)
    (tmp_path / "late/data.txt").unlink()
    with pytest.raises(DeploymentError, match=r"late/data\.txt is missing") as refused:
        repack_wheel(held)
    assert refused.value.code == "ship.wheel"
    (tmp_path / "late-1.0.dist-info/RECORD").unlink()
    with pytest.raises(DeploymentError, match="has no list of files"):
        repack_wheel(metadata.Distribution.at(tmp_path / "late-1.0.dist-info"))


def test_a_checkout_that_pip_cannot_build_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlworkbench").mkdir()
    (tmp_path / "pyproject.toml").write_text("[build-system]\nrequires = []\nbuild-backend = 'nowhere'\n")
    monkeypatch.setattr(wheel.resources, "files", lambda name: tmp_path / "mlworkbench")
    with pytest.raises(DeploymentError, match="cannot build a wheel of the checkout") as refused:
        build_wheel()
    assert refused.value.code == "ship.wheel" and "\n" not in str(refused.value)
