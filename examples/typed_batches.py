"""How do I get typed rows, and many at once, to write them somewhere?

python examples/typed_batches.py
"""

import asyncio

import msgspec
from service import service

from bqstream import Client

TRANSFERS = """subscription { EVM(network: eth) { Transfers {
    Block { Number } Transfer { Amount Sender }
} } }"""


# The fields that are wanted, named and nested as in the document. A dataclass, a TypedDict or a pydantic model does as
# well, and `bqstream types` writes such structs for a document.
class Block(msgspec.Struct):
    Number: str


class Transfer(msgspec.Struct):
    Amount: str
    Sender: str


class Row(msgspec.Struct):
    Block: Block
    Transfer: Transfer


class EVM(msgspec.Struct):
    Transfers: list[Row]


class Data(msgspec.Struct):
    EVM: EVM


async def main() -> None:
    async with service(), Client() as client, client.subscribe(TRANSFERS, type=Data) as stream:
        written = 0
        # Up to 10 messages, or what comes within half a second of the first one.
        async for batch in stream.message_batches(messages=10, seconds=0.5):
            rows = [row for message in batch for row in message.data.EVM.Transfers]
            print(f"{len(batch)} messages: {len(rows)} rows, the last in block {rows[-1].Block.Number}")
            checkpoint = batch[-1].checkpoint  # to be stored together with the rows
            written += len(rows)
            if written >= 100:
                break
        print(f"a new process would go on after {checkpoint.at:%H:%M:%S}")


if __name__ == "__main__":
    asyncio.run(main())
