from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ir.tfrecord import _TABLE, FOOTER, HEADER, framed, framed_data, framed_length, masked_crc32c


def test_the_checksum_of_rfc_3720():
    crc = 0x8A9136AA  # of 32 bytes of zeros, appendix B.4
    assert masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@given(st.integers(1024, 6000), st.integers(0, 2**32 - 1))
def test_lanes_have_the_checksum_of_single_bytes(length, seed):
    data = np.random.default_rng(seed).bytes(length)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    assert masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@given(st.binary(min_size=1, max_size=300), st.data())
def test_damaged_data_is_noticed(data, draw):
    behind = bytearray(framed(data)[HEADER.size :])
    assert framed_data(bytes(behind)) == data
    behind[draw.draw(st.integers(0, len(behind) - 1))] ^= 1
    assert framed_data(bytes(behind)) is None


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
