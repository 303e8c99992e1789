"""One HTML page with everything that was measured on a run; its pictures are part of it."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.ablation import ablation_rows
from lorbms_fast.evaluation.calibration.decoders import DECODERS
from lorbms_fast.evaluation.formatting import interval, percentage, spread
from lorbms_fast.evaluation.generation import draw_generation_curves, generation_results
from lorbms_fast.evaluation.linear import ROWS
from lorbms_fast.evaluation.provenance import store_source
from lorbms_fast.evaluation.results import Result, read_result
from lorbms_fast.run import Run

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .8em 0 } img { max-width: 100%; margin: .6em 0 }
th, td { border: 1px solid #ccc; padding: .25em .7em; text-align: left } th { background: #f3f3f3 }
.missing { color: #888 } figcaption { color: #555; font-size: .9em } figure { margin: 1em 0 }
"""
PUBLISHED = {"fid": "137.7 (te_v2), 139.7 (tr_v6)", "is": "7.28 +- 0.15, 7.27 +- 0.17"}
"""Thesis, Table 4.4, epoch 73."""


@dataclass(frozen=True)
class Section:
    """A heading, what to know about it, a table and pictures."""

    title: str
    notes: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Sequence[Path] = ()
    missing: str = ""
    """How to get what the section would show, where it shows nothing."""


def write_report(run: Path, ablation: Path, calibration: Path, target: Path) -> None:
    """Write the page.

    Args:
        run: folder of the run.
        ablation: folder of the ablation's runs; may be missing.
        calibration: folder of the calibration's results; may be missing.
        target: the page.

    Raises:
        UserError: there is no such run.
    """
    sections = [
        _about(run),
        _generation(run),
        _linear(run),
        _ablation(ablation),
        _calibration(calibration),
        _scenes(run),
        _sheets(run),
    ]
    body = "\n".join(_shown(section) for section in sections)
    title = html.escape(f"LORBMS run {run.resolve().name}")
    head = f'<head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
    with atomic_write(target) as partial:
        page = f'<!doctype html>\n<html lang="en">{head}\n<body><h1>{title}</h1>\n{body}\n</body></html>\n'
        partial.write_text(page, encoding="utf-8")


def _about(run: Path) -> Section:
    opened = Run.open(run)
    config, iteration = opened.config, int(opened.latest().name)
    weights = config.loss
    try:
        source = store_source(opened.open_store())
    except UserError as error:
        source = str(error)
    rows = [
        ["iterations", f"{iteration:,}", "1,411,900 (50 epochs)"],
        ["images", source, "338,865 of COCO (tr_v5)"],
        ["batch size", str(config.batch_size), "12"],
        ["image side", f"{config.model.image_size} px", "64 px"],
        ["numbers in a chunk", str(config.model.chunk), "192"],
        ["layers of the dense blocks", str(config.model.layers), "(4, 5, 7, 10, 12)"],
        ["weights of L_rec, L_adv, L_cls", f"{weights.rec}, {weights.adv}, {weights.cls}", "0.904, 0.052, 0.044"],
        ["precision", config.precision, "float32"],
    ]
    note = "Numbers obtained on composed pictures, at other lengths or with other networks are no replication."
    return Section("This run", [note], ["", "here", "thesis"], rows, _existing(run / "curves.png"))


def _generation(run: Path) -> Section:
    rows, notes = [], []
    for result in generation_results(run):
        fid = result["distance"] == "FID"
        where = [f"{result['iteration']:,}", result["pictures"]]
        note = f"between two halves of the real images {result['frechet_halves']:.1f}"
        rows.append([*where, result["distance"], interval(result["frechet"]), PUBLISHED["fid"] if fid else "", note])
        rows.append([*where, "kernel distance x 1000", interval([1000 * v for v in result["kid"]]), "", ""])
        if "is" in result:
            splits = f"over ten splits {result['is_splits'][0]:.2f} +- {result['is_splits'][1]:.2f}"
            rows.append([*where, "IS", interval(result["is"], 2), PUBLISHED["is"] if fid else "", splits])
        notes.append(result["features"])
    plot = draw_generation_curves(run)
    return Section(
        "Generated images (Table 4.4, Figure 3.10)",
        sorted({f"Features: {note}." for note in notes}),
        ["iteration", "images", "measure", "here [95% interval]", "thesis", "beside it"],
        rows,
        _existing(plot) if plot else (),
        f"lorbms-fast evaluate generation {run} --inception FILE",
    )


def _linear(run: Path) -> Section:
    found = [(row, read_result(run / "evaluation" / "linear" / f"{name}.json")) for name, row in ROWS.items()]
    rows = [
        [
            row.title,
            spread(result["accuracy"], result["sd"]),
            spread(*row.thesis),
            f"{result['classifier_parameters']:,}",
            f"{result['lengths']}; {result['pictures']}",
        ]
        for row, result in found
        if result
    ]
    missing = f"lorbms-fast evaluate linear {run} --stl10 stl10_binary"
    columns = ["row", "here", "thesis", "classifier's parameters", "setting"]
    return Section("Linear classification on STL-10 (Table 4.3), top-1 %", (), columns, rows, (), missing)


def _ablation(folder: Path) -> Section:
    columns = ["variant", "STL-10 here", "thesis", "distance here", "FID, thesis", "IS here", "thesis"]
    measured = [result for name in _variants(folder) for result in generation_results(folder / name)]
    probed = [read_result(folder / name / "evaluation" / "linear" / "encoder.json") for name in _variants(folder)]
    notes = sorted(
        {
            f"Distance: {r['distance']}, {r['features']}; {r['iteration']:,} iterations; {r['pictures']}."
            for r in measured
        }
        | {f"STL-10 columns: {r['lengths']}; {r['pictures']}." for r in probed if r}
    )
    missing = f"lorbms-fast evaluate ablation STORE --out {folder} --stl10 stl10_binary --inception FILE"
    return Section("Ablation (Table 4.5)", notes, columns, ablation_rows(folder), (), missing)


def _calibration(folder: Path) -> Section:
    found = [read_result(folder / f"{name}.json") for name in DECODERS]
    results = [result for result in found if result]
    rows = [
        [r["variant"], f"{r['l1']:.4f}", f"{r['psnr']:.2f}", f"{r['iterations']:,} iterations; {r['pictures']}"]
        for r in results
    ]
    missing = f"lorbms-fast evaluate calibration STORE --out {folder}"
    columns = ["decoder", "L1", "PSNR, dB", "setting"]
    return Section(
        "Autoencoder calibration (Section 3.6.1)",
        ["On held-out photographs; the thesis chose resize-sn."] if rows else (),
        columns,
        rows,
        _existing(folder / "calibration.png"),
        missing,
    )


def _scenes(run: Path) -> Section:
    rows: list[list[str]] = []
    for path in sorted((run / "evaluation" / "scenes").glob("*.json")):
        result: Result = read_result(path) or {}
        if not result:
            continue
        setting = f"iteration {result['iteration']:,}; {result['pictures']}; judge {result['judge']}"
        for part in ("transfer_accuracy", "chunk_to_category"):
            rows += [
                [f"{part.replace('_', ' ')}, {name}", percentage(rate), f"{rate['of']:,}", setting]
                for name, rate in result[part].items()
            ]
        rows += [
            [f"chunk invariance, {name}", f"{value:.3f}", f"{result['pairs']:,}", setting]
            for name, value in result["chunk_invariance"].items()
        ]
    return Section(
        "Beyond the thesis: does a chunk hold its object?",
        ["Every measure is defined in docs/evaluation.md."] if rows else (),
        ["measure", "here [95% interval]", "of", "setting"],
        rows,
        (),
        f"lorbms-fast evaluate scenes {run}",
    )


def _sheets(run: Path) -> Section:
    sheets = sorted((run / "sheets").glob("*.png"))[-1:]
    pictures = [*_existing(run / "mixed_scenes.png", run / "transfer.png"), *sheets]
    return Section("Scenes", pictures=pictures, missing=f"lorbms-fast render {run}")


def _variants(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/run.json"))


def _existing(*paths: Path) -> list[Path]:
    return [path for path in paths if path.is_file()]


def _shown(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if not section.rows and not section.pictures:
        parts.append(f'<p class="missing">Not measured: <code>{html.escape(section.missing)}</code></p>')
        return "\n".join(parts)
    parts += [f"<p>{html.escape(note)}</p>" for note in section.notes]
    if section.rows:
        parts.append("<table>")
        parts.append(_line("th", section.columns))
        parts += [_line("td", row) for row in section.rows]
        parts.append("</table>")
    parts += [_picture(path) for path in section.pictures]
    return "\n".join(parts)


def _line(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = html.escape(path.name)
    return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{name}</figcaption></figure>'
