from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ir.tfrecord import FOOTER, HEADER, framed, framed_length, masked_crc32c


def test_the_checksum_of_rfc_3720():
    crc = 0x8A9136AA  # of 32 bytes of zeros, appendix B.4
    assert masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@given(st.binary(max_size=300))
def test_a_record_says_how_long_it_is(data):
    record = framed(data)
    assert framed_length(record[: HEADER.size]) == len(data)
    assert record[HEADER.size : HEADER.size + len(data)] == data
    assert FOOTER.unpack(record[HEADER.size + len(data) :]) == (masked_crc32c(data),)


@given(st.integers(0, 12 * 8 - 1))
def test_a_damaged_header_has_no_length(bit):
    header = bytearray(framed(b"data")[: HEADER.size])
    header[bit // 8] ^= 1 << bit % 8
    assert framed_length(bytes(header)) is None and framed_length(bytes(header[:11])) is None
