"""The page: every phase's tables and sentences as Markdown."""

from collections.abc import Sequence
from typing import Any

from bench.gpu.findings import read
from bench.gpu.setting import Setting
from lorbms_fast.atomic_io import write_text


def write_page(setting: Setting, phases: Sequence[str]) -> tuple[int, int]:
    """Write the page of all that was found until now; returns how many lines are wrong, and how much was missed."""
    lines = read(setting.findings)
    wrong = [line for line in lines if line.get("wrong")]
    missed = [line for line in lines if "missed" in line]
    title = "Rehearsal on a CPU: times mean nothing" if setting.rehearse else "Kernels and iteration on a GPU"
    text = [f"# {title}", "", "Written by `python -m bench.gpu`; see [GPU-KIT.md](GPU-KIT.md).", ""]
    if wrong:
        text += [f"**{len(wrong)} wrong:**", "", *(f"- {line['phase']}: {_named(line)}" for line in wrong), ""]
    if missed:
        text += ["**Not measured:**", "", *(f"- {line['phase']}: {line['missed']}" for line in missed), ""]
    for phase in phases:
        text += _section(phase, [line for line in lines if line["phase"] == phase])
    write_text(setting.page, "\n".join(text).rstrip() + "\n")
    return len(wrong), len(missed)


def _named(line: dict[str, Any]) -> str:
    first = next(iter(line.get("cells", {}).values()), "")
    return f"{first}: {line['wrong']}" if first else line["wrong"]


def _section(phase: str, lines: list[dict[str, Any]]) -> list[str]:
    if not lines:
        return []
    text = [f"## {phase.capitalize()}", ""]
    for table in dict.fromkeys(line["table"] for line in lines if "table" in line):
        rows = [line for line in lines if line.get("table") == table]
        columns = list(dict.fromkeys(column for row in rows for column in row["cells"]))
        text += [f"{table}:", "", f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
        for row in rows:
            cells = [_shown(row["cells"].get(column)) for column in columns]
            text.append(f"| {' | '.join(cells)} |" + (f" **{row['wrong']}**" if row["wrong"] else ""))
        text.append("")
    notes = [line for line in lines if "note" in line]
    text += [*(f"- {'**wrong:** ' if note['wrong'] else ''}{note['note']}" for note in notes), ""] if notes else []
    return text


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1e}" if value and (abs(value) < 1e-3 or abs(value) >= 1e6) else f"{value:.4g}"
    return str(value).replace("|", "/").replace("\n", " ")
