"""Paths of the three protocols, as docs/CONTRACTS.md lists them."""

from __future__ import annotations

import pytest

from router.core.errors import ProtocolError
from router.core.target import Own, Target, read_target


class TestReadTarget:
    @pytest.mark.parametrize(
        ("path", "target"),
        [
            (b"/v2/models/m", Target("m", "", "", b"/v2/models/m")),
            (b"/v2/models/m/infer", Target("m", "", "", b"/v2/models/m/infer")),
            (b"/v2/models/m/versions/3/infer", Target("m", "3", "", b"/v2/models/m/infer")),
            (b"/v2/models/m/versions/3", Target("m", "3", "", b"/v2/models/m")),
            (b"/v2/models/m/ready", Target("m", "", "", b"/v2/models/m/ready")),
            (b"/v2/models/m/versions/3/infer_stream", Target("m", "3", "", b"/v2/models/m/infer_stream")),
            (b"/v2/models/m/versions/3/explain", Target("m", "3", "", b"/v2/models/m/explain")),
            (b"/v1/models/m/labels/stable:explain", Target("m", "", "stable", b"/v1/models/m:explain")),
            (b"/v1/models/m:predict", Target("m", "", "", b"/v1/models/m:predict")),
            (b"/v1/models/m", Target("m", "", "", b"/v1/models/m")),
            (b"/v1/models/m/versions/3:classify", Target("m", "3", "", b"/v1/models/m:classify")),
            (b"/v1/models/m/labels/stable:predict", Target("m", "", "stable", b"/v1/models/m:predict")),
            (b"/v1/models/m/labels/stable/metadata", Target("m", "", "stable", b"/v1/models/m/metadata")),
            (b"/models/m/a/b", Target("m", "", "", b"/models/m/a/b")),
            (b"/models/m@3/a", Target("m", "3", "", b"/models/m/a")),
            (b"/models/m/", Target("m", "", "", b"/models/m/")),
        ],
    )
    def test_names_model_version_and_label_and_takes_the_last_two_out_of_the_path(
        self, path: bytes, target: Target
    ) -> None:
        assert read_target(path) == target

    def test_knows_the_gateways_own_paths(self) -> None:
        assert read_target(b"/v2") is Own.METADATA
        assert read_target(b"/v2/health/live") is Own.LIVE
        assert read_target(b"/v2/health/ready") is Own.READY

    @pytest.mark.parametrize("path", [b"/", b"/v2/models", b"/v2/models/", b"/v3/models/m", b"/metrics", b"/models/m"])
    def test_refuses_a_path_of_no_protocol_with_404(self, path: bytes) -> None:
        with pytest.raises(ProtocolError) as caught:
            read_target(path)
        assert caught.value.refusal.status == 404

    @pytest.mark.parametrize(
        "path",
        [
            b"/models/m/../other",
            b"/models/m/./a",
            b"/models/m/%2e%2E/a",
            b"/models/m/..%2fa",
            b"/models/m/..",
            b"/models/m/..;x/a",
            b"/models/m/%00",
            b"/models/m/%0d%0aX",
            b"/models/m/%zz",
            b"/models/m/%",
        ],
    )
    def test_refuses_a_path_that_servers_read_differently_with_400(self, path: bytes) -> None:
        with pytest.raises(ProtocolError) as caught:
            read_target(path)
        assert caught.value.refusal.status == 400

    def test_leaves_escapes_and_dots_inside_segments_alone(self) -> None:
        assert read_target(b"/models/m/a%20b/..c/.d/e..") == Target("m", "", "", b"/models/m/a%20b/..c/.d/e..")
