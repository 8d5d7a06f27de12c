"""Give damaged and hostile files to every reader of Gaussians, and count what is not refused with one sentence.

    python -m pano4d.benchmarks.fuzz_formats --count 1000000 --seed 1 --out benchmarks/results/fuzz_formats.json

Input number i is made by a generator seeded with (seed, i), so that any one can be made again: `--only i`. An input
is accepted, refused (InputError of one line), or a crash: any other exception, a warning of NumPy included. Memory is
the process's peak.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from pano4d.benchmarks.fuzz_inputs import KINDS, SHARES, Corpus
from pano4d.runtime.errors import InputError


def main() -> int:
    """Run, print the figures as JSON; exit with 1 if there was a crash."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="make this one input and show what happens")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        corpus = Corpus(Path(folder))
        if args.only is not None:
            print(*_try(corpus, args.seed, args.only), sep="\n")
            return 0
        figures = run(corpus, args.count, args.seed)
    print(json.dumps(figures, indent=1))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 1 if figures["crashes"] else 0


def run(corpus: Corpus, count: int, seed: int) -> dict:
    """Try inputs 0 to count - 1.

    Args:
        corpus: What makes and reads them.
        count: How many.
        seed: Of all of them.

    Returns:
        ``inputs``, ``seed``, per reader ``accepted`` and ``refused``, ``crashes``, the first of them, ``peak_mib`` and
        ``grown_mib`` over the peak before the first input, ``seconds``.

    Raises:
        Nothing.
    """
    before, start = _peak_mib(), time.monotonic()
    counts: dict[str, Counter] = {kind: Counter() for kind in KINDS}
    crashes = []
    for number in range(count):
        kind, outcome, told = _try(corpus, seed, number)
        counts[kind][outcome] += 1
        if outcome == "crash" and len(crashes) < 20:
            crashes.append({"input": number, "reader": kind, "trace": told})
        if sys.stderr.isatty() and not number % 1000:
            print(f"\r{number} of {count}", end="", file=sys.stderr)
    total = sum(counts.values(), Counter())
    return {"inputs": count, "seed": seed, "accepted": total["accepted"], "refused": total["refused"],
            "crashes": total["crash"],
            "readers": {kind: dict(sorted(each.items())) for kind, each in counts.items()}, "first_crashes": crashes,
            "peak_mib": round(_peak_mib(), 1), "grown_mib": round(_peak_mib() - before, 1),
            "seconds": round(time.monotonic() - start, 1), "numpy": np.__version__, "python": sys.version.split()[0],
            "command": f"python -m pano4d.benchmarks.fuzz_formats --count {count} --seed {seed}"}


def _try(corpus: Corpus, seed: int, number: int) -> tuple[str, str, str]:
    """Make one input and read it. Reader, outcome, and what was said."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[int(rng.choice(len(KINDS), p=SHARES))]
    data = corpus.make(kind, rng)
    try:
        corpus.read(kind, data)
    except InputError as error:
        return kind, "refused" if "\n" not in str(error) else "crash", str(error)
    except Exception:
        return kind, "crash", traceback.format_exc()[-1500:]
    return kind, "accepted", ""


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
