"""What ``readers.DOCUMENT`` brings, as types: all of its fields, named as the service names them."""

from __future__ import annotations

import msgspec


class Signature(msgspec.Struct, gc=False):
    Name: str
    SignatureHash: str


class Currency(msgspec.Struct, gc=False):
    Symbol: str
    Name: str
    Decimals: int
    SmartContract: str
    Fungible: bool


class Block(msgspec.Struct, gc=False):
    Number: str
    Hash: str
    Time: str


class Call(msgspec.Struct, gc=False):
    Index: int
    From: str
    To: str


class Log(msgspec.Struct, gc=False):
    Index: int
    SmartContract: str
    Signature: Signature


class Transaction(msgspec.Struct, gc=False):
    Hash: str
    From: str
    To: str
    Index: int
    Gas: int
    GasPrice: str
    Type: int
    Cost: str


class Transfer(msgspec.Struct, gc=False):
    Index: int
    Type: str
    Amount: str
    AmountInUSD: float
    Sender: str
    Receiver: str
    Currency: Currency


class Row(msgspec.Struct, gc=False):
    Block: Block
    Call: Call
    Log: Log
    Transaction: Transaction
    Transfer: Transfer


class EVM(msgspec.Struct, gc=False):
    Transfers: list[Row]


class Data(msgspec.Struct, gc=False):
    EVM: EVM
