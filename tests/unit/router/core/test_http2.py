from __future__ import annotations

import hyperframe.frame as hf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import http2
from router.core.http2 import Http2Error


def parsed(data: bytes) -> hf.Frame:
    frame, length = hf.Frame.parse_frame_header(memoryview(data[:9]), strict=True)
    frame.parse_body(memoryview(data[9 : 9 + length]))
    assert len(data) == 9 + length
    return frame


class TestFrames:
    @given(st.integers(1, 2**31 - 1), st.binary(max_size=100))
    def test_another_reader_reads_what_is_written(self, stream: int, payload: bytes) -> None:
        data = parsed(http2.frame(http2.DATA, http2.END_STREAM, stream, payload))

        assert isinstance(data, hf.DataFrame)
        assert (data.stream_id, data.data, set(data.flags)) == (stream, payload, {"END_STREAM"})

    def test_control_frames_are_what_they_say(self) -> None:
        settings = parsed(http2.settings({http2.MAX_FRAME_SIZE: 65_536}))
        update = parsed(http2.window_update(5, 1000))
        reset = parsed(http2.rst_stream(5, http2.CANCEL))
        goaway = parsed(http2.goaway(7, http2.NO_ERROR, "bye"))

        assert isinstance(settings, hf.SettingsFrame)
        assert isinstance(update, hf.WindowUpdateFrame)
        assert isinstance(reset, hf.RstStreamFrame)
        assert isinstance(goaway, hf.GoAwayFrame)
        assert settings.settings == {hf.SettingsFrame.MAX_FRAME_SIZE: 65_536}
        assert (update.stream_id, update.window_increment, reset.error_code) == (5, 1000, 8)
        assert (goaway.last_stream_id, goaway.error_code, goaway.additional_data) == (7, 0, b"bye")

    @given(st.binary(max_size=50), st.integers(0, 60), st.booleans())
    def test_reads_what_another_writer_wrote(self, content: bytes, padding: int, has_priority: bool) -> None:
        frame = hf.HeadersFrame(9, content, pad_length=padding, flags=["END_HEADERS", "PADDED"])
        if has_priority:
            frame.flags.add("PRIORITY")
            frame.depends_on, frame.stream_weight = 3, 16
        data = frame.serialize()

        length, kind, flags, stream = http2.read_header(data, 0)

        assert (length, kind, stream) == (len(data) - 9, http2.HEADERS, 9)
        assert http2.header_block(flags, data[9:], stream) == content

    @pytest.mark.parametrize(
        ("payload", "code"),
        [
            (b"\x00\x02\x00\x00\x00\x02", http2.PROTOCOL_ERROR),
            (b"\x00\x04\x80\x00\x00\x00", http2.FLOW_CONTROL_ERROR),
            (b"\x00\x05\x00\x00\x3f\xff", http2.PROTOCOL_ERROR),
            (b"\x00\x05\x01\x00\x00\x00", http2.PROTOCOL_ERROR),
            (b"\x00\x05", http2.FRAME_SIZE_ERROR),
        ],
    )
    def test_refuses_settings_that_are_not_allowed(self, payload: bytes, code: int) -> None:
        with pytest.raises(Http2Error) as caught:
            http2.read_settings(payload)

        assert caught.value.code == code

    @pytest.mark.parametrize("payload", [b"", b"\x01", b"\x05abcd"])
    def test_refuses_padding_that_is_longer_than_its_frame(self, payload: bytes) -> None:
        with pytest.raises(Http2Error, match="padded with more than its length"):
            http2.unpadded(http2.PADDED, payload)
