from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bqstream import DocumentRefused, UsageError
from bqstream.cli.asking import duration, loopback, question, since

TYPED = "subscription ($network: evm_network!, $least: Int) { EVM(network: $network) { Blocks(a: $least) { b } } }"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h", 3600), ("8", 8), ("0.5s", 0.5), (" 2 m ", 120)],
)
def test_a_length_of_time_is_read_with_and_without_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "-3s", "5d", "soon", "1e3", "nan", "inf"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="30s, 5m or 1h"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("6h", timedelta(hours=6)),
        (" 90 s ", timedelta(seconds=90)),
        ("1.5m", timedelta(seconds=90)),
        ("2d", timedelta(days=2)),
        ("20000000", 20_000_000),
        ("0", 0),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5+02:00", datetime(2026, 1, 31, 10, microsecond=500_000, tzinfo=UTC)),
    ],
)
def test_a_beginning_in_the_past_is_an_age_a_time_or_a_block(text: str, moment: object) -> None:
    assert since(text) == moment


@pytest.mark.parametrize(
    "text", ["", "0h", "-1h", "yesterday", "6 hours", "1e6", "999999999d", "2026-13-01T00:00Z"]
)
def test_what_is_no_moment_is_refused_with_an_example_of_each_kind(text: str) -> None:
    with pytest.raises(ValueError, match="an age like 6h"):
        since(text)


def test_a_time_needs_its_zone() -> None:
    with pytest.raises(ValueError, match="has no zone"):
        since("2026-01-31T12:00:00")


def test_only_this_machine_is_loopback() -> None:
    assert [loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == ["127.0.0.1", "::1", "localhost"]
    for host in ("0.0.0.0", "example.org", "::"):
        with pytest.raises(ValueError, match="loopback"):
            loopback(host)


def test_variables_come_from_a_file_and_one_by_one_as_the_document_declares_them(tmp_path: Path) -> None:
    (tmp_path / "vars.json").write_text('{"network": "bsc", "least": 1}')
    asked = question(None, TYPED, var=["least=7"], vars=str(tmp_path / "vars.json"))
    assert asked.variables == {"network": "bsc", "least": 7}
    assert (asked.text, asked.operation_name) == (TYPED, None)


@pytest.mark.parametrize(
    ("held", "says"), [(None, "cannot be read"), ("{", "no JSON"), ("[]", "one JSON object")]
)
def test_a_file_of_no_variables_is_named_by_its_name_alone(
    held: str | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "vars.json"
    if held is not None:
        path.write_text(held)
    with pytest.raises(UsageError, match=f"--vars: vars.json .*{says}"):
        question(None, TYPED, vars=str(path))


def test_a_document_comes_from_one_place_and_is_a_subscription(tmp_path: Path) -> None:
    path = tmp_path / "typed.graphql"
    path.write_text(TYPED)
    assert question(str(path)).text == TYPED
    for document, query in ((None, None), (str(path), TYPED)):
        with pytest.raises(UsageError, match="one of the two"):
            question(document, query)
    with pytest.raises(UsageError, match="both come from standard input"):
        question("-", vars="-")
    with pytest.raises(DocumentRefused, match="this is a query"):
        question(None, "query { A { B { c } } }")
    with pytest.raises(UsageError, match=r"missing\.graphql cannot be read: No such file or directory$"):
        question(str(tmp_path / "missing.graphql"))
