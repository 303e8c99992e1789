"""One HTML page with everything that was measured on a run; its pictures are part of it."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader

from lorbms_fast.atomic_io import write_text
from lorbms_fast.errors import UserError, as_word
from lorbms_fast.evaluation.ablation import BEYOND, ablation_rows, last_epochs
from lorbms_fast.evaluation.calibration.decoders import DECODERS
from lorbms_fast.evaluation.disentangling.measure import scene_rows
from lorbms_fast.evaluation.disentangling.retrieval import retrieval_rows
from lorbms_fast.evaluation.gallery import gallery
from lorbms_fast.evaluation.generation import (
    SCORES,
    draw_generation_curves,
    generation_results,
    over_training,
    score_key,
)
from lorbms_fast.evaluation.linear import ROWS, in_columns
from lorbms_fast.evaluation.provenance import AUTHOR_LOGS, store_source, table_4_4
from lorbms_fast.evaluation.results import interval, read_result
from lorbms_fast.rendering.sheet import save_sheet
from lorbms_fast.run import Run, load_networks

TEMPLATE = "report.html"


@dataclass(frozen=True)
class Section:
    """A heading, notes, a table and pictures."""

    title: str
    notes: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Sequence[Path] = ()
    missing: str = ""
    """Command that makes the section's content, shown where it is empty."""


def write_report(run: Path, ablation: Path, calibration: Path, target: Path) -> None:
    """Write a run's page, with the folders of ablation and calibration where they are; UserError without such a run."""
    sections = [_about(run), _generation(run), _over_training(run), _linear(run), _ablation(ablation)]
    sections += [_calibration(calibration), _scenes(run), _gallery(run), _sheets(run)]
    pages = Environment(
        loader=PackageLoader("lorbms_fast.evaluation", "static"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters["base64"] = lambda picture: base64.b64encode(picture.read_bytes()).decode("ascii")
    page = pages.get_template(TEMPLATE).render(title=f"LORBMS run {run.resolve().name}", sections=sections)
    write_text(target, page)


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
    rows = []
    for result in generation_results(run):
        where = [f"{result['iteration']:,}", result["pictures"]]
        note = f"between two halves of the real images {result['frechet_halves']:.1f}"
        rows.append([*where, result["distance"], interval(result["frechet"]), note])
        rows.append([*where, "kernel distance x 1000", interval([1000 * v for v in result["kid"]]), ""])
        if (key := score_key(result)) is not None:
            mean, sd = result[f"{key}_splits"]
            rows.append([*where, SCORES[key], interval(result[key], 2), f"over ten splits {mean:.2f} +- {sd:.2f}"])
    notes = sorted({f"Features: {result['features']}." for result in generation_results(run)})
    columns = ["iteration", "images", "measure", "here [95% interval]", "beside it"]
    pictures = _existing(plot) if (plot := draw_generation_curves(run)) else ()
    missing = f"lorbms-fast evaluate generation {as_word(run)} --inception FILE"
    return Section("Generated images (Figure 3.10)", notes, columns, rows, pictures, missing)


def _over_training(run: Path) -> Section:
    found = over_training(generation_results(run))
    rows = [[one.measure, one.pictures, one.summary, f"{one.checkpoints}", table_4_4(one.measure)] for one in found]
    notes = ["Over all checkpoints measured; the thesis has one an epoch."]
    if any(one.measure == "FID" for one in found):
        notes.append(f"Beside the thesis: {AUTHOR_LOGS}.")
    columns = ["measure", "images", "here", "checkpoints", "thesis"]
    missing = f"lorbms-fast evaluate generation {as_word(run)} --inception FILE --all-checkpoints"
    return Section("Generated images over training (Table 4.4)", notes, columns, rows, (), missing)


def _linear(run: Path) -> Section:
    found = [read_result(run / "evaluation" / "linear" / f"{name}.json") for name in ROWS]
    rows = [[*in_columns(result), f"{result['lengths']}; {result['pictures']}"] for result in found if result]
    missing = f"lorbms-fast evaluate linear {as_word(run)} --stl10 stl10_binary"
    columns = ["row", "here", "thesis", "classifier's parameters", "setting"]
    return Section("Linear classification on STL-10 (Table 4.3), top-1 %", (), columns, rows, (), missing)


def _ablation(folder: Path) -> Section:
    measured = [result for name in _variants(folder) for result in last_epochs(generation_results(folder / name))]
    keys = sorted({key for key in map(score_key, measured) if key})
    score = " and ".join(SCORES[key] for key in keys) or "IS"
    columns = ["variant", "STL-10 here", "thesis", "distance here", "FID, thesis", f"{score} here", "IS, thesis"]
    probed = [read_result(folder / name / "evaluation" / "linear" / "encoder.json") for name in _variants(folder)]
    notes = sorted(
        {
            f"Distance: {r['distance']}, {r['features']}; {r['pictures']}; mean over the last epochs measured, "
            "three in the thesis."
            for r in measured
        }
        | {f"STL-10 columns: {r['lengths']}; {r['pictures']}." for r in probed if r}
    )
    missing = f"lorbms-fast evaluate ablation STORE --out {as_word(folder)} --stl10 stl10_binary --inception FILE"
    return Section("Ablation (Table 4.5)", notes, [*columns, *BEYOND], ablation_rows(folder), (), missing)


def _calibration(folder: Path) -> Section:
    found = [read_result(folder / f"{name}.json") for name in DECODERS]
    results = [result for result in found if result]
    rows = [
        [r["variant"], f"{r['l1']:.4f}", f"{r['psnr']:.2f}", f"{r['iterations']:,} iterations; {r['pictures']}"]
        for r in results
    ]
    missing = f"lorbms-fast evaluate calibration STORE --out {as_word(folder)}"
    columns = ["decoder", "L1", "PSNR, dB", "setting"]
    notes = ["On held-out photographs; the thesis chose resize-sn."] if rows else ()
    pictures = _existing(folder / "calibration.png")
    return Section("Autoencoder calibration (Section 3.6.1)", notes, columns, rows, pictures, missing)


def _scenes(run: Path) -> Section:
    rows: list[list[str]] = []
    for kind, rows_of in (("scenes", scene_rows), ("retrieval", retrieval_rows)):
        for path in sorted((run / "evaluation" / kind).glob("*.json")):
            if result := read_result(path):
                judge = f"; judge {result['judge']}" if "judge" in result else ""
                setting = f"iteration {result['iteration']:,}; {result['pictures']}{judge}"
                rows += [[*row, setting] for row in rows_of(result)]
    notes = ["Every measure is defined in docs/evaluation.md."] if rows else ()
    columns = ["measure", "here [95% interval]", "of", "setting"]
    missing = f"lorbms-fast evaluate scenes {as_word(run)}"
    return Section("Beyond the thesis: does a chunk hold its object?", notes, columns, rows, missing=missing)


def _gallery(run: Path) -> Section:
    """Draw RUN/evaluation/gallery.png anew, if the store is there and its tiles are quadrants."""
    title, opened, target = "Best transfers", Run.open(run), run / "evaluation" / "gallery.png"
    model = opened.config.model
    try:
        store = opened.open_store()
        if model.tiles != 4 or store.side != model.image_size:
            return Section(title, missing="needs a system that mixes quadrants, and pictures of its size in the store")
        picture, words = gallery(load_networks(run), store)
    except UserError as error:
        return Section(title, missing=f"lorbms-fast evaluate report {as_word(run)}  ({error})")
    save_sheet(picture, target)
    return Section(title, [words], pictures=[target])


def _sheets(run: Path) -> Section:
    sheets = sorted((run / "sheets").glob("*.png"))[-1:]
    pictures = [*_existing(run / "mixed_scenes.png", run / "transfer.png"), *sheets]
    return Section("Scenes", pictures=pictures, missing=f"lorbms-fast render {as_word(run)}")


def _variants(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/run.json"))


def _existing(*paths: Path) -> list[Path]:
    return [path for path in paths if path.is_file()]
