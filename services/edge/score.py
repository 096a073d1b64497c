"""Score events on this device: python -I score.py FILE [--out predictions.jsonl] [--name NAME] [--json].

Before anything of this folder is imported or run, every file is compared with the manifest; what follows is the code
of all other deployments, carried in lib/.
"""

import sys

if not getattr(sys.flags, "safe_path", True):
    del sys.path[0]  # this folder: a json.py in it would run before anything is checked
sys.path[:] = [place for place in sys.path if place not in ("", __file__.rpartition("/")[0])]

import hashlib  # noqa: E402 - only now
import json  # noqa: E402
import re  # noqa: E402
from pathlib import Path, PurePosixPath  # noqa: E402

FOLDER = Path(__file__).resolve().parent
NEEDED = ("score.py", "requirements.txt", "lib/mlworkbench/deploy/edge/command.py", "model/manifest.json")
MODEL = ("declaration.json", "contract.json", "golden.jsonl", "scorer.json", "scorer.onnx", "usual.json")
IMPORTED = (".py", ".pyc", ".pyd", ".so")


class AlteredError(Exception):
    """The export is not as it was written; says what is wrong."""


def read(name: str) -> dict[str, object]:
    """Read a file of the export that holds a JSON object."""
    try:
        found = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AlteredError(f"{name} cannot be read ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise AlteredError(f"{name} must be a JSON object; it is none")
    return found


def digests(name: str, told: dict[str, object]) -> dict[str, str]:
    """Give the files of a manifest with their SHA-256; refuse anything else, and names that lead out of the export."""
    files = told.get("files")
    if not isinstance(files, dict):
        raise AlteredError(f"{name} must give files with their SHA-256; it gives none")
    for file, digest in files.items():
        path = PurePosixPath(file)
        inside = path.as_posix() == file and not path.is_absolute() and ".." not in path.parts
        if not (inside and isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
            raise AlteredError(f"{name} must give files inside the export with their SHA-256; it gives {file[:60]!r}")
    return files


def listed() -> dict[str, str]:
    """Give the files that edge.json lists; refuse one that contradicts itself or the manifest of the version."""
    told, manifest = read("edge.json"), read("model/manifest.json")
    if type(told.get("format")) is not int or told["format"] != 1:
        raise AlteredError("edge.json must be of format 1; it is of another")
    model, content_id = manifest.get("model"), manifest.get("content_id")
    if not (isinstance(model, str) and isinstance(content_id, str)):
        raise AlteredError("model/manifest.json must give model and content_id as text; it does not")
    wanted = {"model": model, "version": f"{model}:{content_id[:32]}", "content_id": content_id}
    if any(told.get(name) != value for name, value in wanted.items()):
        raise AlteredError("edge.json must be of the version of model/manifest.json; it is of another")
    files = digests("edge.json", told)
    own = {f"model/{name}": digest for name, digest in digests("model/manifest.json", manifest).items()}
    needed = {*NEEDED, *own.keys() & {f"model/{name}" for name in MODEL}}
    for name in sorted(needed - files.keys()):
        raise AlteredError(f"edge.json must list {name}; it does not")
    for name, digest in files.items():
        if name.startswith("model/") and name != "model/manifest.json" and own.get(name) != digest:
            raise AlteredError(f"{name} must be that of model/manifest.json; edge.json lists another")
    return files


def foreign(folder: Path, files: dict[str, str]) -> str:
    """Name what is below a folder and no plain file or folder of the export; empty where there is nothing."""
    folders = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents}
    for path in sorted(folder.iterdir()):
        name = path.relative_to(FOLDER).as_posix()
        if path.is_symlink() or (name not in folders if path.is_dir() else name not in files):
            return name
        found = foreign(path, files) if path.is_dir() else ""
        if found:
            return found
    return ""


def importable(path: Path) -> bool:
    """Say whether Python could import a file, or something in a folder."""
    names = [path.name, *(file.name for file in path.iterdir())] if path.is_dir() else [path.name]
    return path.name == "__pycache__" or any(name.endswith(IMPORTED) for name in names)


def slipped_in(files: dict[str, str]) -> str:
    """Name what Python could import and is not of the export; empty where there is nothing."""
    for path in sorted(FOLDER.iterdir()):
        if path.name in ("lib", "model", "edge.json", *files):
            if path.is_symlink():
                return path.name
        elif importable(path):
            return path.name
    return foreign(FOLDER / "lib", files) or foreign(FOLDER / "model", files)


def verify() -> None:
    """Refuse an export of which anything is missing, altered or not part of it."""
    files = listed()
    for name, digest in files.items():
        if not (FOLDER / name).is_file():
            raise AlteredError(f"{name} is missing")
        if hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() != digest:
            raise AlteredError(f"{name} was altered")
    functions = read("model/declaration.json").get("row_functions")
    for function in functions if isinstance(functions, list) else []:
        if f"model/{function['file']}" not in files:
            raise AlteredError(f"edge.json must list model/{function['file']}; it does not")
    name = slipped_in(files)
    if name:
        raise AlteredError(f"{name} is no file of the export")


def run() -> int:
    """Verify, then score."""
    try:
        verify()
    except (AlteredError, OSError) as error:
        print(f"error: {error}; nothing was scored; copy the export again", file=sys.stderr)
        return 2
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(FOLDER / "lib"))
    try:
        from mlworkbench.deploy.edge.command import main
    except ImportError as error:
        print(f"error: {error}; pip install -r requirements.txt", file=sys.stderr)
        return 2
    return main(FOLDER, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
