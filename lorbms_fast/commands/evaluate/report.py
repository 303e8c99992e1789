"""`lorbms-fast evaluate report`: everything measured on a run, on one page."""

from pathlib import Path

from lorbms_fast.commands.options import RunFolder
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.report import write_report


def report(
    run: RunFolder,
    /,
    *,
    ablation: Path | None = None,
    calibration: Path | None = None,
    out: Path | None = None,
) -> None:
    """Write one HTML page with all tables (thesis, here, setting), plots and sheets; it needs no other file.

    Holds what the other subcommands have measured so far and says what is missing and how to get it.

    Args:
        run: Folder of a training run.
        ablation: Folder that `evaluate ablation` wrote; RUN/evaluation/ablation by default.
        calibration: Folder that `evaluate calibration` wrote; RUN/evaluation/calibration by default.
        out: Page to write; RUN/evaluation/report.html by default.
    """
    for named in (ablation, calibration):
        if named is not None and not named.is_dir():
            raise UserError(f"{named} is missing: name a folder that evaluate ablation or calibration wrote")
    folder = run / "evaluation"
    target = out or folder / "report.html"
    write_report(run, ablation or folder / "ablation", calibration or folder / "calibration", target)
    print(target)
