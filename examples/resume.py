"""How do I go on where I stopped?

python examples/resume.py

This one always runs on the simulator, whose ledger tells what there was to read.
"""

import asyncio
import tempfile
from pathlib import Path

from service import DOCUMENTS

from bqstream import Checkpoint, Client, Timeouts
from bqstream.simulator import Simulator

DOCUMENT = DOCUMENTS / "trades.graphql"
VARIABLES = {"network": "eth"}


async def main() -> None:
    rows: list[object] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.json"
        async with Simulator(block_interval=0.25, seed=1) as simulator:
            ledger = simulator.ledger

            def client() -> Client:
                timeouts = Timeouts(grace=0.5)
                return Client(simulator.token(), endpoint=simulator.endpoint, timeouts=timeouts)

            async with client() as first, first.subscribe(DOCUMENT, VARIABLES) as stream:
                async for message in stream:
                    rows.extend(message.rows())
                    # What belongs together is kept together: in a database, in one transaction.
                    message.checkpoint.save(path)
                    if len(rows) >= 20:
                        break
            print(f"the first client stops after {len(rows)} rows")

            await simulator.blocks(8)  # which nobody reads

            checkpoint = Checkpoint.load(path)
            async with client() as second, second.subscribe(DOCUMENT, VARIABLES, resume=checkpoint) as stream:
                brought = 0
                async for message in stream:
                    found = list(message.rows())
                    rows.extend(found)
                    brought += len(found) if message.replayed else 0
                    if not stream.closing:
                        simulator.pause()  # no more blocks, so that there is an end to compare
                        if not ledger.verdict(DOCUMENT.read_text(), rows, VARIABLES).lost:
                            break
                print(f"the second one goes on: queries brought {brought} rows that came meanwhile")
                for gap in stream.gaps:
                    print(gap)

            verdict = ledger.verdict(DOCUMENT.read_text(), rows, VARIABLES)
            print(f"{len(rows)} rows read: {verdict.lost} missing, {verdict.repeated} repeated")


if __name__ == "__main__":
    asyncio.run(main())
