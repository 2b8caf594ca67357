"""Twenty times ``kill -9`` in one study with two workers, driver and workers in random turn: is the report the same?

The study is carried out once undisturbed, in one process. Then the same study is started with two workers; again and again the
driver, or one worker, is killed at a random moment, and a killed driver is started again. Checked at each kill: no finished
run is lost or made anew, and the workers of a killed driver are gone within a second. At the end: runs (weights, predictions,
scores, log) bit for bit, and the report's files byte for byte.

Command: python -m benchmarks.study_kill
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import origin

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import album
from studying import Studying, kill

RESULT = Path(__file__).parent / "results" / "study_kill.md"
RECIPE = album.TINY.replace("epochs = 2", "epochs = 6").replace("batch_size = 16", "batch_size = 8")
LEFT_OUT = """\
Left out of the comparison: of each run the fields `seconds`, `training_seconds`, `images_per_second`, `latency`, `memory_bytes`
(set to 1 before the report is made) and `alone` (set to false), in its log `seconds`; the study's command; dates in the report.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the kills and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_kill", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = album.fill(place / "data", {"a": 0, "b": 1, "c": 2}, 24)
        options = ("--recipe", str(album.recipe_file(place / "tiny.toml", RECIPE)), "--seeds", str(asked.seeds))
        undisturbed = Studying(place / "whole", data, *options, checkpoint_seconds=60)
        undisturbed.run()
        expected = undisturbed.ending()
        disturbed = Studying(place / "killed", data, *options, "--workers", "2", checkpoint_seconds=0.0)
        began = time.monotonic()
        told = kill(disturbed, asked.kills, len(expected["runs"]), pause=0.2, seed=asked.seed)
        seconds = time.monotonic() - began
        ending, jobs = disturbed.ending(), len(disturbed.events("began"))
        again = disturbed.events("began").total() - jobs
    different = [part for part in expected if expected[part] != ending[part]]
    verdict = f"no: {', '.join(different)}" if different else "yes"
    row = [len(expected["runs"]), jobs, len(told), ", ".join(told), again, "none", verdict, round(seconds)]
    lines = [
        "# kill -9 of a study, at random moments",
        "",
        origin(),
        "",
        "Each kill: who was killed, and how many runs were finished then.",
        "",
        "| runs | jobs | kills | each kill | begun again | lost or repeated runs | identical | seconds |",
        "|---|---|---|---|---|---|---|---|",
        f"| {' | '.join(map(str, row))} |",
        "",
        LEFT_OUT,
    ]
    print("\n".join(lines))
    RESULT.write_text("\n".join(lines), "utf-8")


if __name__ == "__main__":
    main()
