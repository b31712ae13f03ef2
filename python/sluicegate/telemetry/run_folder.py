"""The folder of one run of the gateway: what its workers share, and nobody needs after it."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path


def run_folder(main: int) -> Path:
    """Of the main process with this number; the workers' parent."""
    return Path(tempfile.gettempdir()) / f"sluicegate-{os.getuid()}-{main}"


def make_run_folder(main: int) -> Path:
    """Make it, for its owner alone. Raises OSError, also where somebody else has made it."""
    folder = run_folder(main)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink():
        raise PermissionError(None, "the folder belongs to somebody else")
    return folder


def touch_run_folder(main: int) -> None:
    """What cleans up old files shall not take the files of one that runs; a mapped file looks old."""
    with suppress(OSError):
        for path in run_folder(main).iterdir():
            os.utime(path, follow_symlinks=False)


def remove_run_folders() -> None:
    """That of this process, and what processes have left that were killed."""
    with suppress(OSError):
        for folder in run_folder(0).parent.glob(f"sluicegate-{os.getuid()}-*"):
            main = folder.name.rpartition("-")[2]
            own = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
            if own and main.isdigit() and (int(main) == os.getpid() or not _lives(int(main))):
                shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
