"""The way into the web console, and the ways that must not lead there: a real control plane, spoken to as a browser does."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.cluster import Cluster, pick_port

OURS = {"x-modelfleet-console": "1"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One control plane for the module, without a model."""
    found = Cluster(tmp_path_factory.mktemp("console"), f"test-{secrets.token_hex(4)}", pick_port)
    found.start()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def browser(shared: Cluster) -> Iterator[httpx.Client]:
    """One that keeps cookies, and has none yet."""
    with httpx.Client(base_url=shared.url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def signed_in(shared: Cluster, browser: httpx.Client) -> httpx.Client:
    assert sign_in(browser, code=new_code(shared)).status_code == 200
    return browser


def new_code(shared: Cluster) -> str:
    answer = shared.api("POST", "/console/links")
    assert answer.status_code == 200, answer.text
    parts = urlsplit(answer.json()["url"])
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{shared.url}/console/"
    assert parts.query == ""
    return parts.fragment.removeprefix("code=")


def sign_in(browser: httpx.Client, **given: str) -> httpx.Response:
    return browser.post("/api/v1/console/session", json=given, headers=OURS)


class TestSigningIn:
    def test_a_link_signs_in_and_tells_where(self, shared: Cluster, browser: httpx.Client) -> None:
        before = browser.get("/api/v1/console/session").json()

        answer = sign_in(browser, code=new_code(shared))

        assert before == {"signed_in": False, "cluster": "", "expires_at": None}
        assert answer.json()["cluster"] == shared.name
        assert browser.get("/api/v1/console/session").json() == answer.json()
        assert browser.get("/api/v1/status").json()["cluster"] == shared.name

    def test_the_token_signs_in_too(self, shared: Cluster, browser: httpx.Client) -> None:
        answer = sign_in(browser, token=(shared.state_dir / "token").read_text().strip())

        assert answer.status_code == 200
        assert browser.get("/api/v1/status").status_code == 200

    def test_the_cookie_is_out_of_reach_of_scripts_other_sites_and_other_services(
        self, shared: Cluster, browser: httpx.Client
    ) -> None:
        cookie = sign_in(browser, code=new_code(shared)).headers["set-cookie"]
        facts = {part.strip().partition("=")[0].lower(): part.strip() for part in cookie.split(";")}

        assert cookie.startswith(f"modelfleet_console_{shared.api_port}=")
        assert {"httponly", "samesite", "path", "max-age"} <= facts.keys()
        assert facts["samesite"].lower() == "samesite=strict"
        assert facts["path"] == "Path=/api/v1"

    def test_signing_out_ends_it_in_the_control_plane(self, shared: Cluster, signed_in: httpx.Client) -> None:
        stolen = dict(signed_in.cookies)

        assert signed_in.delete("/api/v1/console/session", headers=OURS).status_code == 204

        answer = httpx.get(f"{shared.url}/api/v1/status", cookies=stolen, trust_env=False)
        assert answer.status_code == 401
        assert not signed_in.cookies


class TestAttacks:
    def test_a_code_works_once(self, shared: Cluster, browser: httpx.Client) -> None:
        code = new_code(shared)
        assert sign_in(browser, code=code).status_code == 200

        with httpx.Client(base_url=shared.url, trust_env=False) as thief:
            again = sign_in(thief, code=code)

        assert again.status_code == 401
        assert "works once" in again.json()["error"]
        assert "set-cookie" not in again.headers

    def test_a_made_up_cookie_opens_nothing(self, shared: Cluster, browser: httpx.Client) -> None:
        browser.cookies.set(f"modelfleet_console_{shared.api_port}", secrets.token_urlsafe(32))

        answer = browser.get("/api/v1/status")

        assert answer.status_code == 401
        assert "sign in again" in answer.json()["error"]

    @pytest.mark.parametrize("path", ["/api/v1/down", "/api/v1/rollback", "/api/v1/console/session"])
    def test_a_cookie_without_the_header_changes_nothing(self, signed_in: httpx.Client, path: str) -> None:
        answer = signed_in.post(path, json={})

        assert answer.status_code == 403
        assert "x-modelfleet-console" in answer.json()["error"]

    @pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null", "https://localhost"])
    def test_another_page_changes_nothing_even_with_the_header(self, signed_in: httpx.Client, origin: str) -> None:
        answer = signed_in.post("/api/v1/down", json={}, headers={**OURS, "origin": origin})

        assert answer.status_code == 403

    def test_our_own_page_may(self, shared: Cluster, signed_in: httpx.Client) -> None:
        headers = {**OURS, "origin": shared.url, "sec-fetch-site": "same-origin"}

        answer = signed_in.post("/api/v1/plan", json=shared.request({"models": {}}), headers=headers)

        assert answer.status_code == 200, answer.text

    @pytest.mark.parametrize("site", ["same-site", "cross-site"])
    @pytest.mark.parametrize("path", ["/api/v1/status", "/api/v1/console/session"])
    def test_a_page_of_another_port_reads_nothing(self, signed_in: httpx.Client, path: str, site: str) -> None:
        """To a browser a model's page on the gateway's port is the same site: it sends the cookie along."""
        answer = signed_in.get(path, headers={"sec-fetch-site": site})

        assert answer.status_code == 403

    def test_a_name_that_points_here_is_refused(self, signed_in: httpx.Client) -> None:
        for path in ("/console/", "/api/v1/status", "/api/v1/console/session"):
            assert signed_in.get(path, headers={"host": "evil.example"}).status_code == 403

    def test_a_cookie_opens_neither_links_nor_the_gateways_side(self, signed_in: httpx.Client) -> None:
        secret = next(iter(signed_in.cookies.values()))
        fields = {**OURS, "cookie": f"{next(iter(signed_in.cookies))}={secret}"}

        assert signed_in.post("/api/v1/console/links", headers=OURS).status_code == 401
        assert signed_in.get("/internal/v1/table", headers=fields).status_code == 401

    def test_no_answer_allows_another_origin(self, signed_in: httpx.Client) -> None:
        answer = signed_in.options(
            "/api/v1/down", headers={"origin": "http://evil.example", "access-control-request-method": "POST"}
        )

        assert not any(name.startswith("access-control-") for name in answer.headers)


class TestRestarts:
    def test_a_session_outlives_the_control_plane_and_a_code_does_not(self, tmp_path: Path, cluster: str) -> None:
        found = Cluster(tmp_path, cluster, pick_port).start()
        try:
            with httpx.Client(base_url=found.url, trust_env=False, timeout=20) as browser:
                assert sign_in(browser, code=new_code(found)).status_code == 200
                unused = new_code(found)
                found.kill()
                found.start()

                assert browser.get("/api/v1/status").json()["cluster"] == cluster
                assert sign_in(browser, code=unused).status_code == 401
            kept = (found.state_dir / "state.sqlite").read_bytes() + (found.state_dir / "state.sqlite-wal").read_bytes()
            assert not any(value.encode() in kept for value in browser.cookies.values())
        finally:
            found.close()


class TestGuessing:
    def test_bad_guesses_end_guessing_for_a_while(self, tmp_path: Path, cluster: str) -> None:
        found = Cluster(tmp_path, cluster, pick_port).start()
        try:
            with httpx.Client(base_url=found.url, trust_env=False) as browser:
                answers = [sign_in(browser, code=f"guess-{n}") for n in range(12)]
                code = new_code(found)
                refused = sign_in(browser, code=code)
        finally:
            found.close()

        assert [a.status_code for a in answers[:10]] == [401] * 10
        assert answers[-1].status_code == refused.status_code == 429
        assert 0 < int(answers[-1].headers["retry-after"]) < 20


class TestWithoutASession:
    def test_every_route_of_the_api_but_the_sign_in_wants_somebody(self, shared: Cluster) -> None:
        document = httpx.get(f"{shared.url}/openapi.json", trust_env=False).json()
        open_to_all = {
            (method, path)
            for path, methods in document["paths"].items()
            for method in methods
            if httpx.request(
                method, f"{shared.url}{path.replace('{', '').replace('}', '')}", headers=OURS, json={}, trust_env=False
            ).status_code
            not in (401, 403)
        }

        session = {(m, "/api/v1/console/session") for m in ("get", "post", "delete")}
        public = {("get", p) for p in ("/healthz", "/metrics", "/prometheus/targets")}
        assert open_to_all - public <= session
        assert len(document["paths"]) > 20

    def test_the_page_is_served_with_headers_that_let_nothing_else_in(self, shared: Cluster) -> None:
        answer = httpx.get(f"{shared.url}/console/static/missing.js", trust_env=False)
        assert answer.status_code == 404

        page = httpx.get(f"{shared.url}/", trust_env=False, follow_redirects=True)

        assert page.status_code == 200
        assert str(page.url) == f"{shared.url}/console/"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert shared.name not in page.text

    def test_a_file_that_the_browser_has_is_not_sent_again(self, shared: Cluster) -> None:
        first = httpx.get(f"{shared.url}/console/", trust_env=False)

        again = httpx.get(f"{shared.url}/console/", trust_env=False, headers={"if-none-match": first.headers["etag"]})

        assert again.status_code == 304
        assert again.content == b""

    @pytest.mark.parametrize(
        "path", ["../../app.py", "..%2f..%2fapi%2fapp.py", "%2fetc%2fpasswd", "js/../../index.html"]
    )
    def test_no_path_leads_out_of_the_consoles_files(self, shared: Cluster, path: str) -> None:
        target = urlsplit(shared.url)
        with httpx.Client(trust_env=False) as client:
            request = client.build_request("GET", shared.url)
            request.url = httpx.URL(
                scheme="http", host=target.hostname, port=target.port, raw_path=f"/console/static/{path}".encode()
            )
            answer = client.send(request)

        assert answer.status_code == 404
