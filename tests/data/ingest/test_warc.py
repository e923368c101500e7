"""Every response of a WARC file is a page or a loss with its reason, however the file is packed or damaged."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import pytest
from fastwarc.stream_io import Lz4Writer, ZstdWriter
from tests.data.ingest.warcs import HTML, members, record, response, write

from pippin.data.ingest import warc
from pippin.data.ingest.page import MAX_PAGE, Lost, Page

URLS = [f"http://site.example/{number}" for number in range(5)]
RECORDS = [response(url, f"<p>page {url}</p>".encode()) for url in URLS]


def read(path: Path) -> list[Page | Lost]:
    return list(warc.pages("crawl", path.name, path))


def urls(found: list[Page | Lost]) -> list[str]:
    return [item.url for item in found if isinstance(item, Page)]


def reasons(found: list[Page | Lost]) -> list[str]:
    return [item.reason for item in found if isinstance(item, Lost)]


def packed(writer: type) -> bytes:
    out = io.BytesIO()
    for one in RECORDS:
        stream = writer(out)
        stream.write(one)
        stream.flush()
        if hasattr(stream, "end_member"):
            stream.end_member()
    return out.getvalue()


@pytest.mark.parametrize(
    ("ending", "data"),
    [
        (".warc", b"".join(RECORDS)),
        (".warc.gz", members(*RECORDS)),
        (".warc.gz", gzip.compress(b"".join(RECORDS), mtime=0)),
        (".warc.zst", packed(ZstdWriter)),
        (".warc.lz4", packed(Lz4Writer)),
    ],
    ids=["plain", "members", "one member", "zstd", "lz4"],
)
def test_packings(tmp_path: Path, ending: str, data: bytes) -> None:
    found = read(write(tmp_path / f"a{ending}", data))
    assert urls(found) == URLS
    assert len({item.id for item in found if isinstance(item, Page)}) == 5
    assert found[1].body == f"<p>page {URLS[1]}</p>".encode()  # type: ignore[union-attr]
    page = found[1]
    assert isinstance(page, Page)
    assert (page.date, page.content_type, page.charset) == ("2024-01-02T03:04:05Z", "text/html", "utf-8")


def test_ids_follow_from_the_place_in_the_file_alone(tmp_path: Path) -> None:
    whole = read(write(tmp_path / "a.warc.gz", members(*RECORDS)))
    offset = len(members(*RECORDS[:3]))
    assert whole[3].location == f"a.warc.gz#{offset}"
    assert whole[3] == read(write(tmp_path / "a.warc.gz", members(*RECORDS[:4])))[3]


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (response("u", b"gone", status="404 Not Found"), "HTTP status 404"),
        (response("u", b"", status="301 Moved"), "HTTP status 301"),
        (response("u", b"\x89PNG", "Content-Type: image/png\r\n"), "content type image/png"),
        (response("u", b" \n"), "empty"),
        (response("u", b"<p>" + b"x" * MAX_PAGE), "more than"),
        (response("u", b"<p>" + b"x" * MAX_PAGE * 5), "longer than"),
        (response("u", gzip.compress(bytes(MAX_PAGE * 2), mtime=0), HTML + "Content-Encoding: gzip\r\n"), "more than"),
        (response("u", b"\x1f\x8bxx", HTML + "Content-Encoding: gzip\r\n"), "broken record"),
        (response("u", b"<p>x", HTML + "Content-Encoding: rar\r\n"), "content encoding 'rar'"),
        (record("response", "u", b"", extra="WARC-Truncated: length\r\n"), "cut short by the crawler (length)"),
        (record("response", "u", b"no header at all"), ""),
    ],
)
def test_what_is_no_page_is_a_loss_and_the_rest_is_read(tmp_path: Path, one: bytes, reason: str) -> None:
    for data in (members(RECORDS[0], one, RECORDS[1]), RECORDS[0] + one + RECORDS[1]):
        found = read(write(tmp_path / "a.warc.gz", data))
        assert urls(found) == URLS[:2]
        assert len(reasons(found)) == 1
        assert reason in reasons(found)[0]
        assert found[1].location == f"a.warc.gz#{data.index(one) if one in data else len(members(RECORDS[0]))}"


def test_what_is_neither_page_nor_loss(tmp_path: Path) -> None:
    others = [record(kind, "u", b"x: y\r\n") for kind in ("warcinfo", "request", "metadata", "revisit")]
    assert urls(found := read(write(tmp_path / "a.warc", b"".join([*others, RECORDS[0], *others])))) == URLS[:1]
    assert len(found) == 1
    assert reasons(read(write(tmp_path / "a.warc", b"".join(others)))) == ["no pages in it"]


def test_resources_and_extracted_text(tmp_path: Path) -> None:
    data = record("resource", "file:///a", b"<p>hi", "text/html; charset=x") + record(
        "conversion", "http://b", "naïve".encode(), "text/plain"
    )
    a, b = read(write(tmp_path / "a.warc", data))
    assert isinstance(a, Page)
    assert (a.url, a.content_type, a.body) == ("file:///a", "text/html", b"<p>hi")
    assert isinstance(b, Page)
    assert (b.content_type, b.charset) == ("text/plain", "utf-8")


def test_encoded_bodies_and_opt_outs(tmp_path: Path) -> None:
    body = b'<meta name="robots" content="noarchive"><p>hello'
    packed = zlib.compress(body)
    headers = (
        "Content-Type: text/html\r\nContent-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n"
        "X-Robots-Tag: noai\r\nX-Robots-Tag: otherbot: noindex\r\nTDM-Reservation: 1\r\n"
    )
    (page,) = read(write(tmp_path / "a.warc", response("u", b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed), headers)))
    assert isinstance(page, Page)
    assert page.body == body
    assert page.robots == "noai noarchive noindex tdm-reservation"
    assert page.charset == ""


@pytest.mark.parametrize("at", [5, 40, 90, 150])
def test_a_damaged_member_costs_itself(tmp_path: Path, at: int) -> None:
    first, second, third = (members(one) for one in RECORDS[:3])
    damaged = bytearray(second)
    damaged[at] ^= 0xFF
    found = read(write(tmp_path / "a.warc.gz", first + bytes(damaged) + third))
    assert {URLS[0], URLS[2]} <= set(urls(found))
    assert urls(found) == URLS[:3] or len(reasons(found)) == 1


def test_rubble_between_records_is_one_loss(tmp_path: Path) -> None:
    first, second = members(RECORDS[0]), members(RECORDS[1])
    rubble = b"\x1f\x8b\x08 not gzip " * 50
    found = read(write(tmp_path / "a.warc.gz", first + rubble + second))
    assert urls(found) == URLS[:2]
    assert len(reasons(found)) == 1


def test_plain_records_with_wrong_lengths(tmp_path: Path) -> None:
    short = response(URLS[1], b"<p>" + b"x" * 500, length=200)
    found = read(write(tmp_path / "a.warc", RECORDS[0] + short + RECORDS[2]))
    assert urls(found)[0] == URLS[0]
    assert urls(found)[-1] == URLS[2]
    long = response(URLS[1], b"<p>end", length=10_000)
    (reason,) = reasons(read(write(tmp_path / "b.warc", RECORDS[0] + long)))
    assert reason.startswith("broken record: ")
    endless = response(URLS[1], b"<p>end", length=10**15)
    assert urls(read(write(tmp_path / "c.warc", endless + RECORDS[2]))) == [URLS[2]]


@pytest.mark.parametrize("packed", [False, True])
def test_every_cut_of_a_file_is_noticed(tmp_path: Path, packed: bool) -> None:
    first, second = (members(one) if packed else one for one in RECORDS[:2])
    for length in range(1, len(first + second), 3):
        found = read(write(tmp_path / "a.warc.gz", (first + second)[:length]))
        over = length - len(first) if length >= len(first) else length
        # Less than a beginning is no record; of a whole record only the empty lines after it may be missing.
        harmless = over < 8 or over >= len(second) - 14
        assert urls(found) == URLS[: len(urls(found))]
        assert reasons(found) or harmless, (length, found)
        assert len(found) <= 2


def test_a_page_about_warc_is_one_page(tmp_path: Path) -> None:
    page = response("http://x", b"<pre>" + RECORDS[0] + members(RECORDS[1]) + b"</pre>")
    for data in (page + RECORDS[2], RECORDS[2] + page):
        assert sorted(urls(read(write(tmp_path / "a.warc", data)))) == [URLS[2], "http://x"]


def test_files_that_are_no_warc(tmp_path: Path) -> None:
    for data in (b"", b"hello " * 1000, bytes(10_000), gzip.compress(b"hello"), gzip.compress(bytes(10_000_000))):
        found = read(write(tmp_path / "a.warc.gz", data))
        assert urls(found) == []
        assert len(reasons(found)) == 1, (data[:20], found)
