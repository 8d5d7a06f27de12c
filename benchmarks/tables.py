"""Write the README's tables from ``benchmarks/results/``, between markers, so that no figure is typed by hand.

    python -m pano4d.benchmarks.tables          # rewrite README.md
    python -m pano4d.benchmarks.tables --check  # exit 1 if it is not up to date
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from pano4d.benchmarks.measuring import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def demo_table() -> str:
    """Make the table of whole runs from ``results/demo.json``."""
    rows = json.loads((RESULTS / "demo.json").read_text())["cases"]
    head = ("run", "seconds", "peak GiB", "tiles skipped", "motion", "seam", "tile borders", "drift outside the mask")
    return _table(head, [(
        f"{row['name']}, {row['size']}", f"{row['seconds']:.0f}", f"{row['peak_gib']:.1f}",
        f"{row['tiles']['skipped']} of {row['tiles']['total']}",
        f"{row['quality']['motion']:.1f} to {row['quality']['motion_max']:.1f}", f"{row['quality']['seam_ratio']:.2f}",
        f"{row['quality']['tile_border_ratio']:.2f}", f"{row['quality']['static_drift']:.0f}") for row in rows])


def fusion_table() -> str:
    """Make the table of the fusion ablation from ``results/fusion.json``."""
    rows = json.loads((RESULTS / "fusion.json").read_text())["rows"]
    head = ("noise", "fused", "disagreement", "sharpness", "motion", "temporal power, 1st to 4th frequency", "seam",
            "tile borders")
    return _table(head, [(
        row["noise"], row["fuse"], f"{mean['disagreement']:.2f}", f"{mean['sharpness']:.2f}", f"{mean['motion']:.2f}",
        " ".join(f"{power:.2f}" for power in mean["spectrum"]), f"{mean['seam_ratio']:.2f}",
        f"{mean['tile_border_ratio']:.2f}") for row in rows for mean in [row["mean"]]])


def steps_table() -> str:
    """Make the table of fewer steps from ``results/steps.json``."""
    rows = json.loads((RESULTS / "steps.json").read_text())["rows"]
    references = [row["name"] for row in rows if "spread" in row]
    head = ("solver, steps", "first frame, dB", "temporal power, 1st to 4th frequency", "motion", "correlation", "drift",
            *(f"PSNR to {name}, dB" for name in references), *(f"within the spread of {name}" for name in references))

    def told(row: dict, name: str) -> tuple[str, str]:
        if name not in row["against"]:
            return "", ""
        against = row["against"][name]
        alike = "" if against["psnr_db"] is None else f"{against['psnr_db']:.1f}"
        return alike, "yes" if against["within_spread"] else "no: " + ", ".join(against["outside"]).replace("_", " ")

    return _table(head, [(
        row["name"], f"{mean['first_frame_psnr_db']:.2f}", " ".join(f"{p:.2f}" for p in mean["spectrum_ratio_1_to_4"]),
        f"{mean['motion_levels_generated'] / mean['motion_levels_true']:.2f}", f"{mean['motion_correlation']:.3f}",
        f"{mean['static_drift_levels']:.2f}", *(told(row, name)[0] for name in references),
        *(told(row, name)[1] for name in references)) for row in rows for mean in [row["mean"]]])


def reuse_table() -> str:
    """Make the table of reused features from ``results/reuse.json``, beside fewer steps from ``results/steps.json``."""
    result = json.loads((RESULTS / "reuse.json").read_text())
    fewer = [row for row in json.loads((RESULTS / "steps.json").read_text())["rows"] if row["levels"] == "aligned"]
    head = ("steps", "evaluations' worth, demo", "Stable Video Diffusion", "first frame, dB",
            "temporal power, 1st to 4th frequency", "motion", "drift")

    def figures(row: dict) -> tuple[str, ...]:
        mean = {name: sum(run[name] for run in row["runs"]) / len(row["runs"]) for name in (
            "first_frame_psnr_db", "motion_levels_generated", "motion_levels_true", "static_drift_levels")}
        powers = zip(*(run["spectrum_ratio_1_to_4"] for run in row["runs"]))
        return (f"{mean['first_frame_psnr_db']:.2f}", " ".join(f"{sum(power) / len(row['runs']):.2f}" for power in powers),
                f"{mean['motion_levels_generated'] / mean['motion_levels_true']:.2f}", f"{mean['static_drift_levels']:.2f}")

    rows = [(f"{row['steps']}", f"{row['steps']}", f"{row['steps']}", *figures(row)) for row in fewer]
    rows += [(f"{row['steps']}, of which {row['steps'] - -(-row['steps'] // (row['reused'] + 1))} reuse",
              f"{row['evaluations']['demo']:.1f}", f"{row['evaluations']['full']:.1f}", *figures(row))
             for row in result["rows"] if row["reused"]]
    return _table(head, rows)


def stages_table() -> str:
    """Make the table of one stage and two from ``results/stages.json``."""
    result = json.loads((RESULTS / "stages.json").read_text())
    apart = " ".join(f"{low}-{high}°" for low, high in result["apart_deg"])
    head = ("stages", "fine_sigma", "disagreement", "sharpness", "motion", f"agreement {apart} apart", "seam",
            "tile borders", "tile steps")
    rows = [(
        row["stages"], "-" if row["fine_sigma"] is None else f"{row['fine_sigma']:g}", f"{mean['disagreement']:.2f}",
        f"{mean['sharpness']:.2f}", f"{mean['motion']:.2f}", " ".join(f"{value:.2f}" for value in mean["agreement"]),
        f"{mean['seam_ratio']:.2f}", f"{mean['tile_border_ratio']:.2f}", f"{mean['tile_steps']:.0f}")
        for row in result["rows"] for mean in [row["mean"]]]
    true = [sum(values) / len(values) for values in zip(*(scene["agreement"] for scene in result["truth"]))]
    rows.append(("truth", "", "", "1", "1", " ".join(f"{value:.2f}" for value in true), "", "", ""))
    return _table(head, rows)


def layouts_table() -> str:
    """Make the table of layouts from ``results/layouts.json``."""
    rows = json.loads((RESULTS / "layouts.json").read_text())["rows"]
    head = ("--layout", "tiles", "disagreement", "sharpness", "motion", "temporal power", "seam", "tile borders",
            "within the spread")
    return _table(head, [(
        row["asked"], f"{row['tiles']}", f"{mean['disagreement']:.2f}", f"{mean['sharpness']:.2f}", f"{mean['motion']:.2f}",
        f"{mean['spectrum']:.2f}", f"{mean['seam_ratio']:.2f}", f"{mean['tile_border_ratio']:.2f}",
        "" if row is rows[0] else "no: " + ", ".join(row["outside"]).replace("_", " ") if row["outside"] else "yes")
        for row in rows for mean in [row["mean"]]])


def panorama_table() -> str:
    """Make the table of whole panoramas on a GPU from ``results/panorama.json``."""
    result = json.loads((RESULTS / "panorama.json").read_text())
    baseline, moving = result["baseline"]["seconds"], {"all": "everything", "masked": f"{result['mask']['share']:.0%}"}
    head = ("technique", "what moves", "seconds", "times faster", "PSNR to the unabridged run, dB", "on by default")
    rows = [("the original's schedule, eager float16", "either", f"{baseline:.0f}", "1", "", "")]
    for row in sorted(result["waterfall"], key=lambda row: (-row["seconds"], row["moving"])):
        alike = row.get("psnr_db")
        rows.append((row["technique"], moving[row["moving"]], f"{row['seconds']:.1f}", f"{baseline / row['seconds']:.1f}",
                     "" if alike is None else f"{alike:.1f}", "yes" if row["counts"] else ""))
    return _table(head, rows)


def engines_table() -> str:
    """Make the table of the largest engines and kernels from ``results/panorama.json``."""
    result = json.loads((RESULTS / "panorama.json").read_text())
    head, copy = ("what", "figure", "against"), result["copy"]["gbps"]
    burst = result["ceiling"].get("burst_tflops")
    at_first = f" sustained ({burst:.0f} at first)" if burst else ""
    rows = [(f"{name}, {found['rows']} rows", f"{found['ms']:.0f} ms, {found['tflops']:.0f} TFLOP/s",
             f"eager {found['eager_ms']:.0f} ms; {found['share_of_ceiling']:.1%} of {result['ceiling']['tflops']:.0f} TFLOP/s, "
             f"an 8192³ product{at_first}; error {found['relative_error']:.1e}, eager float16 {found['eager_relative_error']:.1e}")
            for name, found in (("denoiser", result["unet"]), ("decoder", result["vae_decode"]))]
    rows += [(name, f"{result[name]['gbps']:.0f} GB/s", f"{result[name]['gbps'] / copy:.0%} of a copy's {copy:.0f} GB/s")
             for name in ("blend", "compose")]
    rows.append(("loading all engines", f"{result['load_seconds']:.1f} s", "hashes included"))
    rows.append((f"peak memory at {result['size']}", f"{result['peak_gib']:.1f} GiB", "all engines kept loaded"))
    rows += [(f"peak memory at {row['size']}", f"{row['peak_gib']:.1f} GiB", "one engine at a time")
             for row in result["one_engine_at_a_time"]]
    return _table(head, rows)


def bandwidth_table() -> str:
    """Make the table of the kernels that move the tiles from ``results/bandwidth.json``."""
    result = json.loads((RESULTS / "bandwidth.json").read_text())
    head = ("kernel", "GB/s", f"of a copy's {result['copy']['gbps']:.0f} GB/s", "µs", "µs without computing",
            "µs of a copy of as many bytes")
    return _table(head, [(name, f"{row['gbps']:.0f}", f"{row['gbps'] / result['copy']['gbps']:.0%}", f"{row['us']:.1f}",
                          f"{row['moves_us']:.1f}", f"{row['copy_us']:.1f}")
                         for name in ("blend", "compose") for row in [result[name]]])


def onnx_table() -> str:
    """Make the table of the networks' ONNX files, run by onnxruntime, from ``results/onnx.json``."""
    rows = json.loads((RESULTS / "onnx.json").read_text())["rows"]
    head = ("network", "relative error of the file", "of eager float16", "GiB of host memory to export", "ms")
    return _table(head, [(
        f"{row['network']}, {row['rows']} rows" if row["rows"] > 1 else row["network"], f"{row['relative_error']:.1e}", f"{row['eager_relative_error']:.1e}", f"{row['host_gib']:.2f}", f"{row['ms']:.0f}")
        for row in rows])


def lifting_table() -> str:
    """Make the table of lifting, ours and the original's, from ``results/lifting.json``."""
    result = json.loads((RESULTS / "lifting.json").read_text())
    names = {"ours": "ours", "ours_full": "ours, one Gaussian a pixel", "baseline": "the original's",
             "ours_true": "ours, true distances", "baseline_true": "the original's, true distances"}
    head = ("lifting", "scenes", "seconds", "times faster", "peak GiB", "PSNR in the centre, 5 % and 10 % off, dB", "SSIM",
            "holes", "flicker")

    def told(row: dict, figure: str, form: str) -> str:
        return " ".join(f"{row[figure][place]:{form}}" for place in ("center", "off5", "off10"))

    rows = []
    for run, name in names.items():
        row = result.get(run)
        if row:
            name += f", {row['gaussians']:,.0f} Gaussians" if run in ("ours", "baseline") else ""
            compared = run.startswith("ours") and "baseline" in result
            times = f"{result['baseline']['seconds'] / row['seconds']:.0f}" if compared else ""
            rows.append((name, f"{len(row['scenes'])}", f"{row['seconds']:.0f}", times, f"{row['peak_gib']:.1f}",
                         told(row, "psnr_db", ".2f"), told(row, "ssim", ".3f"), told(row, "holes", ".2%"),
                         f"{row['flicker']:.2f}" if "flicker" in row else ""))
    return _table(head, rows)


def alignment_table() -> str:
    """Make the table of aligned depth from ``results/alignment.json``."""
    rows = json.loads((RESULTS / "alignment.json").read_text())["rows"]
    groups = {"metric and scale-invariant, z": [row for row in rows if row["kind"] != "affine-inverse"],
              "affine-inverse, z": [row for row in rows if (row["kind"], row["geometry"]) == ("affine-inverse", "z")],
              "affine-inverse, ray": [row for row in rows if (row["kind"], row["geometry"]) == ("affine-inverse", "ray")]}

    def told(group: list[dict], name: str, form: str) -> str:
        values = [row[name] for row in group]
        return f"{sum(values) / len(values):{form}}, {max(values):{form}}"

    head = ("kind, geometry", "runs", "ratio, mean and worst", "of what moves", "scale drift", "path drift")
    return _table(head, [(name, f"{len(group)}", told(group, "ratio", ".2f"), told(group, "moving_ratio", ".2f"),
                          told(group, "scale_drift", ".2%"), told(group, "path_drift", ".2%"))
                         for name, group in groups.items()])


def container_table() -> str:
    """Make the table of a scene's forms from ``results/container.json``."""
    result = json.loads((RESULTS / "container.json").read_text())
    rows = [(name, f"{result[field] / 1e6:.1f}") for name, field in (
        ("a PLY file for each frame", "ply_bytes"), ("scene.p4d", "bytes"), ("scene.p4d with --deltas", "bytes_with_deltas"))]
    return _table(("form", "MB"), rows)


def viewer_table() -> str:
    """Make the table of a scene opened in a browser from ``results/viewer.json``."""
    result = json.loads((RESULTS / "viewer.json").read_text())
    head = ("window", "all files decoded, s", "first picture, s", "another frame, s", "a turn by 90°, s",
            "PSNR to our rasteriser, dB")

    def told(figures: list[float]) -> str:
        median, least, most = figures
        return f"{median:.1f} ({least:.1f} to {most:.1f})"

    return _table(head, [(row["window"], *(told(row[name]) for name in ("loaded_s", "opened_s", "frame_s", "turn_s")),
                          f"{row['psnr_db']:.1f}") for row in result["windows"]])


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "demo": (RESULTS / "demo.json", demo_table),
    "fusion": (RESULTS / "fusion.json", fusion_table),
    "panorama": (RESULTS / "panorama.json", panorama_table),
    "engines": (RESULTS / "panorama.json", engines_table),
    "bandwidth": (RESULTS / "bandwidth.json", bandwidth_table),
    "steps": (RESULTS / "steps.json", steps_table),
    "reuse": (RESULTS / "reuse.json", reuse_table),
    "stages": (RESULTS / "stages.json", stages_table),
    "layouts": (RESULTS / "layouts.json", layouts_table),
    "onnx": (RESULTS / "onnx.json", onnx_table),
    "lifting": (RESULTS / "lifting.json", lifting_table),
    "alignment": (RESULTS / "alignment.json", alignment_table),
    "container": (RESULTS / "container.json", container_table),
    "viewer": (RESULTS / "viewer.json", viewer_table),
}


def filled(text: str) -> str:
    """Replace what stands between ``<!-- table:NAME -->`` and ``<!-- /table -->`` by the table of that name.

    Where its results are missing a sentence says so.
    """
    for name, (source, make) in TABLES.items():
        pattern = rf"(<!-- table:{name} -->\n).*?(<!-- /table -->)"
        missing = f"Not measured yet: there is no `benchmarks/results/{source.name}`.\n"
        text = re.sub(pattern, lambda found: found[1] + (make() if source.exists() else missing) + found[2], text, flags=re.S)
    return text


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> None:
    """Rewrite or check every page with tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check, stale = parser.parse_args().check, []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(page.name)
            if not check:
                page.write_text(filled(text), encoding="utf-8")
    if check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python -m pano4d.benchmarks.tables")


if __name__ == "__main__":
    main()
