"""What the figures were measured on."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from bench.children import ROOT


def facts() -> dict[str, str]:
    """Machine, system, versions, date, and what else the machine was doing at the begin."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": field(Path("/proc/cpuinfo"), "model name") or platform.processor() or "unknown",
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": field(Path("/proc/meminfo"), "MemTotal") or "unknown",
        "kernel": platform.release(),
        "system": field(Path("/etc/os-release"), "PRETTY_NAME", "=").strip('"') or platform.system(),
        "python": platform.python_version(),
        "commit": commit(),
        "extension": extension(),
        "load average at the begin": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def field(path: Path, name: str, separator: str = ":") -> str:
    """The value of the first line with this name, or nothing."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return ""


def commit() -> str:
    """The commit, and whether files differ from it."""
    try:
        head, changed = (
            subprocess.run(
                ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for arguments in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "python", "rust"])
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{head} with changes" if changed else head


def extension() -> str:
    """Which build of the extension module was measured, so that two results can be told apart."""
    for path in sorted((ROOT / "python" / "sluicegate").glob("_core*.so")):
        return f"{path.name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    return "installed package"
