"""How long 10,000 records take to become a board; the aim is 10 seconds: `python tests/perf/render_board.py`."""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmark.engine.records import write_record
from tests.commands.test_leaderboard import made_up, with_probes

RECORDS, TABLES, ROUNDS = 10_000, 40, 3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for i in range(RECORDS):
            table, pairs = i % TABLES, (10, 20, 40, 80, 100)[i % 5]
            record = made_up(
                f"{i:016x}", random.random(), key=str(table), seed=i // TABLES, pairs=pairs, name=f"set{table}"
            )
            with_probes(write_record(Path(folder), record), {100: 0.1, 200: random.random()})
        for _ in range(ROUNDS):
            started = time.monotonic()
            command = [sys.executable, "-m", "benchmark.leaderboard", "--results", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            print(f"{RECORDS} records: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
