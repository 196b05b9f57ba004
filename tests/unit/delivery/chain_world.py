"""A small chain for the merge: blocks of rows, links that bring them late and in any order, and a query side that lags.

Pure: time is a number, and the machine under test is a `Stream` with a real `Plan`. What queries ask for is answered
from the chain by their ranges, so that neither HTTP nor GraphQL stands between.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any

import msgspec

from bqstream.checkpoint import Checkpoint
from bqstream.clock import Clock
from bqstream.config import Buffer
from bqstream.delivery.ask import Answer, Range
from bqstream.delivery.backfill import Ask, Sleep
from bqstream.delivery.closing import Start
from bqstream.delivery.cursor import Cursor
from bqstream.delivery.document import Document
from bqstream.delivery.marks import known_of, void_of, windows_of
from bqstream.delivery.plan import Plan
from bqstream.delivery.stream import Stream
from bqstream.message import Gap, Message

LAG = 2.0
IDLE = 2 * LAG  # a link that is silent for so long is given up
EPOCH = 1_700_000_000.0
FIRST = 100

KEYED = """subscription { EVM { Transfers {
  Block { Number Hash } Transaction { Hash } Call { Index } Log { Index } Transfer { Index Type Amount }
} } }"""
ALIKE = "subscription { EVM { DEXTradeByTokens { Block { Number Hash } Trade { Amount Price } } } }"
DOCUMENTS = {"keyed": (KEYED, "Transfers"), "alike": (ALIKE, "DEXTradeByTokens")}

Known = tuple[int, str]


@dataclass
class Row:
    """One emission: its block, its number in the chain, and its text but for prices."""

    block: int
    number: int
    value: int
    emitted: float

    def text(self, keyed: bool, price: float) -> str:
        block = f'"Block":{{"Number":"{self.block}","Hash":"0x{self.block:x}"}}'
        if keyed:
            place = f'"Call":{{"Index":1}},"Log":{{"Index":{self.number}}}'
            transfer = f'"Transfer":{{"Index":0,"Type":"token","Amount":"{self.value}"}}'
            return f'{{{block},"Transaction":{{"Hash":"0x{self.number:x}"}},{place},{transfer}}}'
        return f'{{{block},"Trade":{{"Amount":"{self.value}","Price":{price}}}}}'


@dataclass
class Block:
    number: int
    mined: float
    rows: list[Row] = field(default_factory=list)


@dataclass
class Link:
    """``pending`` is what it is still to bring, with the time by which that comes; ``dead`` since when it is silent.
    The service starts what it was asked for within a grace."""

    opened: float
    live: bool = False
    dead: float | None = None
    pending: list[tuple[float, Row]] = field(default_factory=list)


class Answering(Plan):
    """A plan whose answers come ready made."""

    def read(self, ask: Ask, data: Any) -> dict[str, Answer]:
        answers: dict[str, Answer] = data
        return answers


class ChainWorld:
    """Emits rows, brings them on every link, answers queries, and keeps book of what was delivered."""

    def __init__(
        self,
        seed: int,
        document: str = "keyed",
        *,
        kinds: int = 3,
        query_lag: float = 1.0,
        cap: int = 10_000,
        buffer: Buffer | None = None,
    ) -> None:
        self.random = Random(seed)
        self.text, self.cube = DOCUMENTS[document]
        self.keyed = document == "keyed"
        self.kinds = kinds
        self.query_lag = query_lag
        self.cap = cap
        self.now = 0.0
        self.chain = [Block(FIRST, 0.0)]
        self.emitted: list[Row] = []
        self.links: dict[int, Link] = {}
        self.opened = 0
        self.brought = 0
        self.promised: int | None = None  # emissions from this number on are owed
        self.beaten: float | None = None
        self.delivered: Counter[Known] = Counter()
        self.order: list[int] = []
        self.told: list[Gap] = []
        self.reading = True
        self._taking = False
        self.due: float | None = None  # when the machine wants to be asked for a query again
        self.buffer = buffer or Buffer()
        self.newest_message: Message | None = None
        self.committed: tuple[Counter[Known], Checkpoint | None] = Counter(), None
        self.stream = self.start()

    def start(self, **options: Any) -> Stream:
        plan = Plan.make(Document.parse(self.text))
        clock = Clock(monotonic=lambda: self.now, wall=lambda: EPOCH + self.now)
        return Stream(
            self.buffer,
            clock,
            on_gap=self.told.append,
            on_parked=lambda resumed: None,
            on_ready=self.read,
            on_room=lambda: None,
            on_queries=self._wanted,
            plan=Answering(**{one.name: getattr(plan, one.name) for one in fields(plan)}),
            cubes=(self.cube,),
            lag=LAG,
            **options,
        )

    def read(self) -> None:
        """The reader takes what waits; not while it is taking, as taking makes room for more."""
        if self._taking:
            return
        self._taking = True
        while self.reading and (message := self.stream.take()) is not None:
            self.newest_message = message
            for row in json.loads(message.raw)["data"]["EVM"][self.cube]:
                self.delivered[self.known(row)] += 1
                self.order.append(int(row["Block"]["Number"]))
        self._taking = False

    def known(self, row: Any) -> Known:
        value = row["Log"]["Index"] if self.keyed else row["Trade"]["Amount"]
        return int(row["Block"]["Number"]), str(value)

    def commit(self) -> None:
        """The reader makes what it has read safe, together with the checkpoint."""
        if self.newest_message is not None:
            checkpoint = Checkpoint.loads(self.newest_message.checkpoint.dumps())
            self.committed = self.delivered.copy(), checkpoint

    def restart(self) -> None:
        """The process dies, and another one goes on from what was made safe."""
        rows, checkpoint = self.committed
        if checkpoint is None:
            return
        self.delivered = rows.copy()
        self.links, self.opened, self.due, self.newest_message = {}, 0, None, None
        void = void_of(checkpoint, Plan.make(Document.parse(self.text)).readers) or ()
        start = Start(windows_of(checkpoint), known_of(checkpoint), "resumed", "restarted", self.now, void)
        self.stream = self.start(start=start)
        self.open()

    # ------------------------------------------------------------------ the service

    def publish(self, count: int = 1) -> None:
        """Rows of the newest block are emitted to every link that is live; no block's come longer than a while."""
        if self.now > self.chain[-1].mined + 10:
            self.mine()
        for _ in range(count):
            number = len(self.emitted)
            row = Row(self.chain[-1].number, number, self.random.randrange(self.kinds), self.now)
            self.chain[-1].rows.append(row)
            self.emitted.append(row)
            for link in self.links.values():
                if link.live and link.dead is None:
                    link.pending.append((self.now + self.random.random() * 0.95 * LAG, row))

    def mine(self) -> None:
        self.chain.append(Block(self.chain[-1].number + 1, self.now))

    def open(self, live: bool = True) -> None:
        self.opened += 1
        self.beaten = None
        self.links[self.opened] = Link(self.now)
        self.stream.joined(self.opened, self.now, grace=LAG, served=EPOCH + self.now)
        if live:
            self.go_live()

    def go_live(self) -> None:
        for link in self.links.values():
            link.live = True
        self.beaten = self.now
        if self.promised is None:
            self.promised = len(self.emitted)

    def bring(self, number: int, count: int) -> None:
        """A link brings rows, any of those that it still has to, as one message or several at once."""
        link = self.links[number]
        self.random.shuffle(link.pending)
        taken, link.pending = link.pending[:count], link.pending[count:]
        if taken:
            self.brought += 1
            most = len(taken) if self.brought % 3 else max(1, len(taken) // 3)
            raws = []
            for start in range(0, len(taken), most):
                # The same price on every link; a query prices anew.
                rows = ",".join(
                    row.text(self.keyed, 1.5 + row.number % 2) for _, row in taken[start : start + most]
                )
                raws.append(f'{{"data":{{"EVM":{{"{self.cube}":[{rows}]}}}}}}'.encode())
            self.stream.payloads(number, raws, self.now)

    def advance(self, seconds: float) -> None:
        """Time passes; what must have come by then comes, and queries are asked when they are due."""
        end = self.now + seconds
        while True:
            due = [(at, number) for number, link in self.links.items() for at, _ in link.pending]
            due += [(link.opened + 0.9 * LAG, -1) for link in self.links.values() if not link.live]
            due += [(link.dead + IDLE, n) for n, link in self.links.items() if link.dead is not None]
            if self.due is not None:
                due.append((self.due, 0))
            if not due or min(due)[0] > end:
                break
            at, number = min(due)
            self.now = max(self.now, at)
            if number < 0:
                self.go_live()
            elif number:
                link = self.links[number]
                if link.dead is not None:
                    self.lose(number)
                    continue
                link.pending.sort(key=lambda one: one[0])
                self.bring_first(number)
            else:
                self._query()
        self.now = end

    def bring_first(self, number: int) -> None:
        link = self.links[number]
        (at, row), link.pending = link.pending[0], link.pending[1:]
        rest, link.pending = link.pending, [(at, row)]
        self.bring(number, 1)
        if number in self.links:
            link.pending = rest

    # ------------------------------------------------------------------ queries

    def _wanted(self) -> None:
        if self.due is None:
            self.due = self.now

    def _query(self) -> None:
        step = self.stream.step(self.now)
        match step:
            case None:
                self.due = None
            case Sleep(seconds):
                self.due = self.now + max(seconds, 1e-3)
            case Ask(ranges):
                answers: Any = {key: self._answer(asked) for key, asked in ranges.items()}
                self.due = self.now
                self.stream.answered(step, answers, self.now)

    def _answer(self, asked: Range) -> Answer:
        seen = [block for block in self.chain[:-1] if block.mined + self.query_lag <= self.now]
        chosen = [row for block in seen if self._within(block, asked) for row in block.rows]
        self.random.shuffle(chosen)
        chosen.sort(key=lambda row: (row.block, row.number if asked.block else 0))
        chosen = chosen[asked.offset : asked.offset + self.cap]
        head = Cursor("number", seen[-1].number) if seen else None
        time = int(EPOCH + seen[-1].mined) if seen else None
        floor = Cursor("number", FIRST)
        rows = [msgspec.Raw(row.text(self.keyed, 9.25 + row.number % 3).encode()) for row in chosen]
        return Answer(rows, head, time, floor, int(EPOCH))

    def _within(self, block: Block, asked: Range) -> bool:
        time = int(EPOCH + block.mined)
        if asked.block is not None:
            return block.number == asked.block.value
        return (
            (asked.low is None or block.number >= asked.low.value)
            and (asked.high is None or block.number <= asked.high.value)
            and (asked.since is None or time >= asked.since)
            and (asked.till is None or time <= asked.till)
        )

    # ------------------------------------------------------------------ the session

    @property
    def newest(self) -> int:
        return max(self.links)

    def crossed(self) -> bool:
        return self.stream.crossed(self.newest, self.now, beaten=self.beaten)

    def cross(self) -> None:
        newest = self.newest
        self.stream.cross(newest, self.now)
        self.links = {newest: self.links[newest]}

    def fall_silent(self, number: int) -> None:
        self.links[number].dead = self.now
        self.links[number].pending.clear()

    def lose(self, number: int) -> None:
        del self.links[number]
        self.stream.lost(number, self.now, "it broke")

    def pause(self) -> None:
        """No link brings anything any more, until another is opened."""
        self.links.clear()
        self.stream.pause(self.now)
        self.stream.resume()

    # ------------------------------------------------------------------ the promise

    def settle(self) -> None:
        """All is well from now on, and the chain goes on, until nothing is held back or missing any more."""
        for number in [number for number, link in self.links.items() if link.dead is not None]:
            self.lose(number)
        if not self.links:
            self.open()
        self.go_live()
        self.reading = True
        self.read()
        for _ in range(40):
            self.publish(2)
            self.mine()
            self.advance(1.0)
            if not self.stream.closing and len(self.links) == 1:
                break
            if len(self.links) == 2 and self.crossed():
                self.cross()
        self.advance(2 * LAG)

    def check(self) -> None:
        """Every row that is owed, as often as it was emitted, and none oftener."""
        owed = Counter(self.owed(row) for row in self.emitted[self.promised or 0 :])
        all_of_them = Counter(self.owed(row) for row in self.emitted)
        assert not self.stream.closing, (self.stream.gaps, self.now)
        assert not owed - self.delivered, f"lost: {owed - self.delivered}"
        assert not self.delivered - all_of_them, f"repeated: {self.delivered - all_of_them}"
        holes = [gap for gap in self.stream.gaps if not gap.closed]
        assert not holes, holes

    def owed(self, row: Row) -> Known:
        return row.block, str(row.number if self.keyed else row.value)
