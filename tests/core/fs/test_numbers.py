"""How Linux reads numbers from a write, and prints masks and limits."""
import pytest

from core.fs import node
from core.fs.node import FsError, bit_list, bit_map, memparse, page_counter_memparse, parse_int, tunable
from core.mm.mm_types import PAGE_COUNTER_MAX

# what is written to memory.max, and what is read back (page_counter_memparse: bytes / 4096, truncated)
LIMITS = (
    ("5000", "4096\n"), ("100", "0\n"), ("0", "0\n"), ("4096", "4096\n"), ("8191", "4096\n"), ("50M", "52428800\n"), ("1G\n", "1073741824\n"),
    ("64k", "65536\n"), ("0x2000", "8192\n"), ("1T", "1099511627776\n"), ("max", "max\n"), ("max\n", "max\n"), (" 4K ", "4096\n"),
    ("9223372036854775807", "max\n"), ("8E", "max\n"),
)  # fmt: skip


@pytest.mark.parametrize(("written", "shown"), LIMITS)
def test_limit_reads_back_in_whole_pages(written: str, shown: str) -> None:
    assert tunable(page_counter_memparse(written, "memory.max")) == shown


@pytest.mark.parametrize("junk", ["", "-1", "-4096", "50MB", "50 M", "fifty", "1.5G", "maximum", "0x", "1Z", "4K4", "--1", "+5"])
def test_junk_is_einval(junk: str) -> None:
    with pytest.raises(FsError) as refused:
        page_counter_memparse(junk, "memory.max")
    assert refused.value.errno == "EINVAL" and "memory.max" in refused.value.message


def test_limit_is_capped() -> None:
    assert page_counter_memparse("max", "x") == page_counter_memparse("8E", "x") == PAGE_COUNTER_MAX


INTEGERS = (("64", 64), ("0x10", 16), ("010", 8), ("-5", -5), ("+7", 7), (" 3\n", 3), ("0", 0), ("-0", 0))


@pytest.mark.parametrize(("text", "value"), INTEGERS)
def test_integers_are_those_of_kstrtoint(text: str, value: int) -> None:
    assert parse_int(text, -1000, 1000, "x") == value


@pytest.mark.parametrize(("text", "errno"), [
    ("", "EINVAL"), ("abc", "EINVAL"), ("1.0", "EINVAL"), ("5 5", "EINVAL"), ("1001", "EINVAL"), ("-1001", "EINVAL"), ("08", "EINVAL"),
    ("0x", "EINVAL"), ("10K", "EINVAL"), ("99999999999999999999", "ERANGE"), ("1_000", "EINVAL"), ("٣", "EINVAL"),
])  # fmt: skip
def test_integers_out_of_range_or_form(text: str, errno: str) -> None:
    with pytest.raises(FsError) as refused:
        parse_int(text, -1000, 1000, "x")
    assert refused.value.errno == errno


def test_sizes_have_binary_suffixes() -> None:
    assert [memparse("1" + letter, "x") for letter in "KMGTPE"] == [1 << shift for shift in (10, 20, 30, 40, 50, 60)]


@pytest.mark.parametrize(("bits", "ranges"), [([], ""), ([0], "0"), ([0, 1], "0-1"), ([0, 2, 3, 4, 7], "0,2-4,7"), ([3, 1], "1,3")])
def test_bit_list(bits: list[int], ranges: str) -> None:
    assert bit_list(bits) == ranges


@pytest.mark.parametrize(("bits", "width", "mask"), [
    ([0, 1], 2, "3"), ([1], 2, "2"), ([0], 8, "01"), ([33], 64, "00000002,00000000"), ([0, 32], 33, "1,00000001"), ([], 4, "0"),
])  # fmt: skip
def test_bit_map(bits: list[int], width: int, mask: str) -> None:
    assert bit_map(bits, width) == mask


def test_mems_allowed_is_1024_bits_wide() -> None:
    assert bit_map([0, 1], 1024) == ",".join(["00000000"] * 31 + ["00000003"])


def test_choice_marks_the_current_one() -> None:
    assert node.choice(("always", "madvise", "never"), "madvise") == "always [madvise] never\n"


def test_special_characters_in_names() -> None:
    assert node.escape("/dev/zero (deleted)", "\n\t= ") == "/dev/zero\\040(deleted)"


@pytest.mark.parametrize("data", [b"\xff", b"5\x000", "50M·".encode()])
def test_what_is_no_text_is_einval(data: bytes) -> None:
    with pytest.raises(FsError):
        node.decode(data, "x")
