#!/usr/bin/env python3
# ruff: noqa
# fmt: off
"""Black-box HTTP/1.1 reverse-proxy conformance / request-smuggling harness (stdlib only).

  python3 conformance.py HOST PORT --upstream-port UP [--path /v2/models/echo/infer] [options]

The proxy under test is started by YOU, on HOST:PORT (127.0.0.1), with 127.0.0.1:UP as its (only) backend.
The harness listens on UP and records the exact bytes that arrive; smuggling is judged by what arrives there.
Levels: MUST (all of nginx/HAProxy/Envoy pass), SHOULD (RFC or quality; the three differ), INFO (recorded only).
Exit status 1 if any MUST case fails.
"""
import argparse, concurrent.futures as cf, hashlib, json, os, socket, sys, threading, time, traceback
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from h1lib import *

CASES = []
class Fail(Exception): pass
class Skip(Exception): pass


def case(cat, name, level="MUST", excl=False):
    def deco(f):
        CASES.append(dict(cat=cat, name=name, level=level, excl=excl, fn=f)); return f
    return deco


class T:
    """context of one case"""
    def __init__(s, A, U):
        s.A, s.U = A, U; s.nonce = new_nonce(); s.conns = []
        q = b"&" if b"?" in A.path else b"?"
        s.target = A.path + q + b"case=" + s.nonce.encode()
        q = b"&" if b"?" in A.get_path else b"?"
        s.gtarget = A.get_path + q + b"case=" + s.nonce.encode()
        s.host = A.host_header
    @property
    def smug(s):  # a complete pipelined request that the proxy would route, marked
        return b"POST " + s.target + b"&smug=1 HTTP/1.1\r\nHost: " + s.host + b"\r\n" + s.A.extra + b"Content-Length: 0\r\n\r\n"
    def conn(s, **k):
        c = Conn(s.A.host, s.A.port, **k); s.conns.append(c); return c
    def script(s, fn): s.U.scripts[s.nonce] = fn
    def sub(s):
        t = T(s.A, s.U); t.conns = s.conns; return t
    def body(s, n):
        if s.A.json:
            pre = b'{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["'; suf = b'"]}]}'
            if n >= len(pre) + len(suf): return pre + b"a" * (n - len(pre) - len(suf)) + suf
            return b" " * (n - 2) + b"{}" if n >= 2 else b"0" * n
        return (b"0123456789abcdef" * (n // 16 + 1))[:n]
    def req(s, method=b"POST", hdr=b"", body=None, target=None, ver=b"HTTP/1.1", host=True, line=None, cl=True):
        if target is None: target = s.gtarget if method in (b"GET", b"HEAD", b"OPTIONS") else s.target
        o = (line if line is not None else method + b" " + target + b" " + ver) + b"\r\n"
        if host: o += b"Host: " + s.host + b"\r\n"
        o += b"X-Case: " + s.nonce.encode() + b"\r\n" + s.A.extra
        if body is not None and method == b"POST": o += b"Content-Type: %s\r\n" % s.A.ctype
        if body is not None and cl: o += b"Content-Length: %d\r\n" % len(body)
        if isinstance(hdr, str): hdr = hdr.encode("latin1")
        return o + hdr + b"\r\n" + (body or b"")
    def chunked(s, chunks, trailers=b"", last=b"0", ext=b""):
        return b"".join(b"%x%s\r\n%s\r\n" % (len(c), ext, c) for c in chunks) + last + b"\r\n" + trailers + b"\r\n"

    # ---- judging
    def clean(s, nonce=None):
        """what arrived upstream for this case must be strictly valid and not smuggled"""
        for r in s.U.get(nonce or s.nonce):
            if r.errors: raise Fail("AMBIGUOUS BYTES REACHED UPSTREAM: " + "; ".join(r.errors)[:200])
            if r.smug: raise Fail("SMUGGLED request reached upstream")
    def ok(s, r, body=None, status=200, policy=False, method="POST", n=1, up=True):
        if r.errors: raise Fail("bad response: %r" % r)
        if policy and not s.A.strict_methods and r.status in (401, 403, 404, 405, 501) and not s.U.get(s.nonce): return "refused by policy %d" % r.status
        if r.status != status: raise Fail("status %r (want %d)" % (r, status))
        if not r.complete: raise Fail("incomplete response %r" % r)
        e = r.h("x-echo-case")
        if e and e[0].decode() != s.nonce: raise Fail("RESPONSE MIXED UP: got the answer of %r" % e[0])
        if not up: return "ok"
        s.clean()
        got = s.U.wait(s.nonce, lambda q: q.complete, 2.0)
        if len(got) != n: raise Fail("%d complete upstream requests (want %d)" % (len(got), n))
        if body is not None:
            q = got[-1]
            if q.body_len != len(body) or q.sha != hashlib.sha256(body).hexdigest():
                raise Fail("upstream body differs: %d bytes, want %d" % (q.body_len, len(body)))
        return "ok"
    def simple(s, raw, body=None, method="POST", timeout=10, policy=False, status=200):
        c = s.conn()
        c.send(raw); r = c.resp(method, timeout)
        return s.ok(r, body, policy=policy, status=status)
    def alive(s):
        """a fresh, plain request still works"""
        t = s.sub(); b = t.body(20)
        t.simple(t.req(body=b), b)
    def one(s): return s.U.get(s.nonce)[0]


REJ = {400, 403, 404, 405, 408, 411, 413, 414, 415, 417, 421, 422, 426, 431, 501, 505}


def judge_reject(t, raw, mode, want_body=None, statuses=None, pieces=None, wait_ok=True, allow_reqs=1, wait=1.5, absent=()):
    """mode reject: never a complete request upstream, 4xx/501/505 or close.
       mode safe  : reject, or exactly one clean forward (its body == want_body if given)"""
    c = t.conn()
    if pieces:
        for p in pieces:
            if not c.send(p): break
            time.sleep(0.05)
    else: c.send(raw)
    resps = []; waited = False
    r = c.resp("POST", wait)
    if r.ended == "timeout" and not r.status:
        waited = True; c.shut(); r = c.resp("POST", wait)
    while r.status:
        resps.append(r)
        if len(resps) > 6 or r.ended != "ok": break
        r = c.resp("POST", 0.6)
    closed = c.eof
    if r.ended == "timeout" and r.status == 0 and r.partial: pass
    time.sleep(0.08)
    t.clean()
    up = t.U.get(t.nonce); comp = [q for q in up if q.complete]
    for x in resps:
        if x.errors: raise Fail("malformed response to client: %r" % x)
    desc = ",".join(str(x.status) for x in resps) or ("closed" if r.ended in ("closed", "reset") else "no answer")
    if waited: desc += "(after half-close)"
    rejected = (resps and resps[-1].status in (statuses or REJ)) or (not resps and (r.ended in ("closed", "reset") or (waited and wait_ok)))
    first_rej = (resps and resps[0].status in (statuses or REJ)) or not resps
    if not comp:
        if resps and resps[0].status in (500, 502, 503, 504): raise Fail("answered %s: blames upstream for a client fault" % desc)
        if resps and resps[0].status < 400: raise Fail("answered %s itself" % desc)
        if not rejected: raise Fail("not rejected: %s" % desc)
        if len(resps) > 1 and first_rej: raise Fail("went on after rejecting: %s" % desc)
        return "rejected %s%s" % (desc, "" if closed or not resps else " (kept open)")
    for q in comp:
        for n in absent:
            if q.h(n): raise Fail("header %s was injected upstream" % n)
    if mode == "reject": raise Fail("FORWARDED upstream as a complete request (%s)" % desc)
    if len(comp) > allow_reqs: raise Fail("%d requests upstream (%s)" % (len(comp), desc))
    if want_body is not None and bytes(comp[0].body) != want_body:
        raise Fail("forwarded with body %r, want %r" % (bytes(comp[0].body)[:60], want_body[:60]))
    return "forwarded clean: %s" % desc + (" closed" if closed else "")


def R(cat, name, fn, mode="reject", level="MUST", **k):
    CASES.append(dict(cat=cat, name=name, level=level, excl=False, mode=mode,
                      fn=lambda t: judge_reject(t, fn(t) if fn else None, mode, **{a: (b(t) if callable(b) else b) for a, b in k.items()})))


# =============================================================================== 1 valid requests
V = "1-valid"
for n in (0, 1, 2, 15, 100, 1023, 4096, 8191, 8192, 8193, 16384, 65535, 65536, 65537, 1 << 20, 16 << 20, 64 << 20):
    @case(V, "POST Content-Length %d" % n, excl=n > (1 << 20))
    def _(t, n=n):
        if n > t.A.max_body: raise Skip("over --max-body")
        b = t.body(n); return t.simple(t.req(body=b), b, timeout=60)
for n, k in ((1, 1), (3, 1), (1000, 1), (1 << 20, 1 << 20), (1 << 20, 1000), (16 << 20, 65536)):
    @case(V, "POST chunked %d bytes in chunks of %d" % (n, k), excl=n > (1 << 20))
    def _(t, n=n, k=k):
        if n > t.A.max_body: raise Skip("over --max-body")
        b = t.body(n); ch = [b[i:i + k] for i in range(0, n, k)]
        return t.simple(t.req(hdr=b"Transfer-Encoding: chunked\r\n") + t.chunked(ch), b, timeout=60)

@case(V, "POST chunked, empty body")
def _(t): return t.simple(t.req(hdr=b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", b"")
@case(V, "POST without body or length")
def _(t): return t.simple(t.req(), b"")
@case(V, "chunked: uppercase hex, leading zeros, long last-chunk 000")
def _(t):
    b = t.body(26); raw = t.req(hdr=b"Transfer-Encoding: chunked\r\n") + b"0001A\r\n" + b + b"\r\n000\r\n\r\n"
    return t.simple(raw, b)
@case(V, "chunked: extensions (token, quoted-string) accepted, body intact")
def _(t):
    b = t.body(10); raw = t.req(hdr=b"Transfer-Encoding: chunked\r\n") + b'5;a=b;c="d e;f"\r\n' + b[:5] + b"\r\n5;x\r\n" + b[5:] + b"\r\n0;last\r\n\r\n"
    r = t.simple(raw, b); return r + (" (ext forwarded)" if t.one().chunk_ext else "")
@case(V, "chunked: trailers never become headers or framing")
def _(t):
    b = t.body(30); raw = t.req(hdr=b"Trailer: X-T\r\nTransfer-Encoding: chunked\r\n") + t.chunked([b], b"X-T: 1\r\nContent-Length: 3\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\n")
    r = t.simple(raw, b); q = t.one()
    if q.h("x-t") or b"evil" in b"".join(q.h("host")) or any(b"6.6.6.6" in v for v in q.h("x-forwarded-for")): raise Fail("trailer merged into headers")
    t.alive(); return r + " (trailers %s)" % ("forwarded " + ",".join(n.decode() for n, _ in q.trailers) if q.trailers else "dropped")
@case(V, "header names are case-insensitive (cOnTeNt-LeNgTh)")
def _(t):
    b = t.body(33); return t.simple(t.req(cl=False, body=None, hdr=b"cOnTeNt-LeNgTh: 33\r\n") + b, b)
@case(V, "TRANSFER-ENCODING: CHUNKED (case-insensitive value)")
def _(t):
    b = t.body(33); return t.simple(t.req(hdr=b"TRANSFER-ENCODING: CHUNKED\r\n") + t.chunked([b]), b)
for nm, lv, ws in (("spaces, none", "MUST", b" "), ("tabs", "SHOULD", b"\t")):
    @case(V, "optional whitespace around values (%s)" % nm, lv)
    def _(t, ws=ws):
        b = t.body(33); r = t.simple(t.req(hdr=b"Content-Length:" + ws + b" 33 " + ws + b"\r\nX-A:v\r\nX-B:" + ws * 3 + b"v2" + ws + b" \r\n") + b, b); q = t.one()
        if q.h("x-a") != [b"v"] or q.h("x-b") != [b"v2"]: raise Fail("values %r %r" % (q.h("x-a"), q.h("x-b")))
        return r
@case(V, "empty header value")
def _(t):
    b = t.body(33); return t.simple(t.req(body=b, hdr=b"X-Empty:\r\nX-Empty2: \r\n"), b)
@case(V, "header value of 4000 bytes arrives intact")
def _(t):
    b = t.body(33); r = t.simple(t.req(body=b, hdr=b"X-Long: " + b"v" * 4000 + b"\r\n"), b)
    if t.one().h("x-long") != [b"v" * 4000]: raise Fail("value altered")
    return r
for n in (20, 50, 80):
    @case(V, "%d header fields" % n)
    def _(t, n=n):
        b = t.body(33); r = t.simple(t.req(body=b, hdr=b"".join(b"X-H%d: %d\r\n" % (i, i) for i in range(n))), b)
        if t.one().h("x-h%d" % (n - 1)) != [b"%d" % (n - 1)]: raise Fail("lost a header")
        return r
@case(V, "repeated header: values kept in order")
def _(t):
    b = t.body(33); r = t.simple(t.req(body=b, hdr=b"X-Dup: a\r\nX-Other: z\r\nX-Dup: b\r\n"), b)
    v = b",".join(t.one().h("x-dup")).replace(b" ", b"")
    if v != b"a,b": raise Fail("X-Dup %r" % v)
    return r
@case(V, "all token characters in a field name", "SHOULD")
def _(t):
    b = t.body(33); n = b"X-!#$%&'*+.^`|~9"; r = t.simple(t.req(body=b, hdr=n + b": v\r\n"), b)
    return r + (" (kept)" if t.one().h(n) else " (dropped)")
@case(V, "obs-text (0x80-0xff) in a value: intact or 400", "MUST")
def _(t):
    b = t.body(33); c = t.conn(); c.send(t.req(body=b, hdr=b"X-8: caf\xe9\xff\r\n")); r = c.resp("POST")
    if r.status == 400 and not t.U.get(t.nonce): return "rejected 400"
    t.ok(r, b)
    if t.one().h("x-8") not in ([b"caf\xe9\xff"], []): raise Fail("altered %r" % t.one().h("x-8"))
    return "intact"
@case(V, "leading empty line (CRLF) before request line", "SHOULD")
def _(t):
    b = t.body(33); return t.simple(b"\r\n" + t.req(body=b), b)
@case(V, "query string is forwarded byte for byte (%0d%0a, %00, %2F, +, ;)")
def _(t):
    b = t.body(33); q = b"&q=%2F%0d%0aX-I:1%20+;a=b%25&z="; r = t.simple(t.req(body=b, target=t.target + q), b)
    if not t.one().target.endswith(q): raise Fail("target became %r" % t.one().target)
    return r
@case(V, "request target of 4000 bytes")
def _(t):
    b = t.body(33); return t.simple(t.req(body=b, target=t.target + b"&q=" + b"x" * 4000), b)
for m in (b"GET", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"):
    @case(V, "method %s" % m.decode())
    def _(t, m=m): return t.simple(t.req(m), b"", policy=True)
@case(V, "method GET with a Content-Length body: body kept with it or refused")
def _(t):
    b = t.body(33); c = t.conn(); c.send(t.req(b"GET", body=b) + t.req(b"GET")); r = c.resp()
    if r.status in REJ and not t.U.get(t.nonce): return "refused %d" % r.status
    r2 = c.resp(); return t.ok(r, n=2) if r2.status else t.ok(r)
@case(V, "unknown but valid method token (FOO): forwarded as is, or 4xx/501")
def _(t):
    c = t.conn(); c.send(t.req(b"FOO", target=t.target, body=b"")); r = c.resp()
    if r.status in REJ and not t.U.get(t.nonce): return "refused %d" % r.status
    t.ok(r)
    if t.one().method != b"FOO": raise Fail("method became %r" % t.one().method)
    return "forwarded"
@case(V, "HEAD: no body, Content-Length kept, connection still in sync")
def _(t):
    t.script(lambda h: (h.read_body(), h.reply(b"x" * 500)))
    c = t.conn(); c.send(t.req(b"HEAD")); r = c.resp("HEAD")
    if r.status in (401, 403, 404, 405, 501) and not t.A.strict_methods and not t.U.get(t.nonce): return "refused by policy %d" % r.status
    t.ok(r, method="HEAD")
    b = t.body(20); c.send(t.req(body=b)); r2 = c.resp()
    if r2.status != 200 or r2.errors: raise Fail("next response on the connection: %r" % r2)
    return "ok"
@case(V, "OPTIONS * : answered or rejected, never a broken target")
def _(t): return judge_reject(t, t.req(b"OPTIONS", target=b"*"), "safe")
@case(V, "absolute-form target: accepted; upstream gets a consistent Host")
def _(t):
    b = t.body(33); c = t.conn(); c.send(t.req(body=b, target=b"http://" + t.host + t.target)); r = c.resp()
    if r.status in (400, 404, 421) and not t.U.get(t.nonce): return "refused %d" % r.status
    t.ok(r, b); q = t.one(); return "forwarded as %s Host %s" % (("origin-form" if q.target.startswith(b"/") else "absolute-form"), q.h("host")[0].decode())
@case(V, "absolute-form target whose authority differs from Host: authority wins or 400", "SHOULD")
def _(t):
    b = t.body(33); c = t.conn(); c.send(t.req(body=b, target=b"http://a.example" + t.target, hdr=b"", host=False).replace(b"X-Case", b"Host: b.example\r\nX-Case", 1)); r = c.resp()
    if r.status in (400, 404, 421) and not t.U.get(t.nonce): return "refused %d" % r.status
    t.ok(r, b); q = t.one()
    if q.target.startswith(b"/") and q.h("host")[0] == b"b.example": raise Fail("used Host b.example although the target names a.example")
    return "Host %s target %s" % (q.h("host")[0].decode(), q.target[:20])
# connection management
@case(V, "keep-alive: 100 requests on one connection")
def _(t):
    c = t.conn()
    for i in range(100):
        s = t.sub(); b = s.body(10 + i); c.send(s.req(body=b)); s.ok(c.resp("POST"), b)
    return "ok"
@case(V, "pipelined: 10 POST (CL) sent at once, answered in order")
def _(t):
    c = t.conn(); ss = [t.sub() for _ in range(10)]
    c.send(b"".join(s.req(body=s.body(50 + i)) for i, s in enumerate(ss)))
    for i, s in enumerate(ss): s.ok(c.resp("POST"), s.body(50 + i))
    return "ok"
@case(V, "pipelined: chunked POST, CL POST, bodyless POST, chunked POST")
def _(t):
    c = t.conn(); ss = [t.sub() for _ in range(4)]; b = t.body(40)
    c.send(ss[0].req(hdr=b"Transfer-Encoding: chunked\r\n") + t.chunked([b[:7], b[7:]]) + ss[1].req(body=b) + ss[2].req() + ss[3].req(hdr=b"Transfer-Encoding: chunked\r\n") + t.chunked([b]))
    for i, s in enumerate(ss): s.ok(c.resp("POST"), b"" if i == 2 else b)
    return "ok"
@case(V, "pipelined behind a slow first answer: order kept")
def _(t):
    c = t.conn(); a, z = t.sub(), t.sub(); a.script(lambda h: (h.read_body(), time.sleep(0.5), h.reply(b"slow")))
    c.send(a.req(body=b"aa") + z.req(body=b"zz")); a.ok(c.resp("POST")); z.ok(c.resp("POST")); return "ok"
@case(V, "Connection: close honoured (response says close, socket closes)")
def _(t):
    b = t.body(33); c = t.conn(); c.send(t.req(body=b, hdr=b"Connection: close\r\n")); r = c.resp("POST"); t.ok(r, b)
    if c.wait_close(2) is None: raise Fail("not closed")
    if not any(b"close" in v.lower() for v in r.h("connection")): raise Fail("closed without Connection: close")
    return "ok"
@case(V, "Connection: close followed by pipelined request: second one is not answered", "SHOULD")
def _(t):
    b = t.body(33); c = t.conn(); c.send(t.req(body=b, hdr=b"Connection: close\r\n") + t.smug); r = c.resp("POST"); 
    if r.status != 200: raise Fail("%r" % r)
    time.sleep(0.2); t.clean(); return "ok"
@case(V, "HTTP/1.0 without keep-alive: answered, then closed")
def _(t):
    b = t.body(33); c = t.conn(); c.send(t.req(body=b, ver=b"HTTP/1.0")); r = c.resp("POST")
    if r.status in (426, 505): return "refused %d" % r.status
    t.ok(r, b)
    if c.wait_close(2) is None: raise Fail("not closed")
    return "ok"
@case(V, "HTTP/1.0 with Connection: keep-alive: says keep-alive and stays, or closes")
def _(t):
    b = t.body(33); c = t.conn(); c.send(t.req(body=b, ver=b"HTTP/1.0", hdr=b"Connection: keep-alive\r\n")); r = c.resp("POST")
    if r.status in (426, 505): return "refused %d" % r.status
    t.ok(r, b); ka = any(b"keep-alive" in v.lower() for v in r.h("connection"))
    if ka:
        s = t.sub(); c.send(s.req(body=b, ver=b"HTTP/1.0", hdr=b"Connection: keep-alive\r\n")); s.ok(c.resp("POST"), b); return "kept alive"
    if c.wait_close(2) is None: raise Fail("no keep-alive header and not closed")
    return "closed"
@case(V, "HTTP/1.0 client never gets a chunked response")
def _(t):
    t.script(lambda h: (h.read_body(), h.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")))
    c = t.conn(); c.send(t.req(body=b"x", ver=b"HTTP/1.0")); r = c.resp("POST")
    if r.status in (426, 505): return "refused %d" % r.status
    if r.h("transfer-encoding"): raise Fail("Transfer-Encoding sent to an HTTP/1.0 client")
    t.ok(r)
    if bytes(r.body) != b"hello world": raise Fail("body %r" % bytes(r.body))
    return "ok (%s)" % r.framing
@case(V, "HTTP/1.0 without Host: 200 or 400")
def _(t): return judge_reject(t, t.req(body=b"abc", ver=b"HTTP/1.0", host=False), "safe", want_body=b"abc")
# expect
@case(V, "Expect: 100-continue, body sent only after the 100")
def _(t):
    b = t.body(5000); c = t.conn(); c.send(t.req(hdr=b"Expect: 100-continue\r\nContent-Length: 5000\r\n"))
    end = time.monotonic() + 3; c.s.settimeout(3)
    try:
        while b"\r\n\r\n" not in c.b and c.fill(end): pass
    except socket.timeout: raise Fail("no 100 Continue within 3 s")
    if not c.b.startswith(b"HTTP/1.1 100"): raise Fail("got %r" % bytes(c.b[:40]))
    c.send(b); r = c.resp("POST"); return t.ok(r, b)
@case(V, "Expect: 100-continue, body sent without waiting")
def _(t):
    b = t.body(5000); return t.simple(t.req(body=b, hdr=b"Expect: 100-continue\r\n"), b)
@case(V, "Expect: 100-continue with a chunked body")
def _(t):
    b = t.body(500); c = t.conn(); c.send(t.req(hdr=b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n")); time.sleep(0.3); c.send(t.chunked([b])); return t.ok(c.resp("POST"), b)
@case(V, "Expect: 100-continue in HTTP/1.0 is ignored (no 100 sent)", "SHOULD")
def _(t):
    b = t.body(50); c = t.conn(); c.send(t.req(body=b, ver=b"HTTP/1.0", hdr=b"Expect: 100-continue\r\n")); r = c.resp("POST")
    if r.interim: raise Fail("sent 100 to an HTTP/1.0 client")
    return t.ok(r, b)
@case(V, "Expect: unknown-thing: 417, or forwarded/ignored")
def _(t): return judge_reject(t, t.req(body=b"abc", hdr=b"Expect: 200-maybe\r\n"), "safe", want_body=b"abc")
@case(V, "Expect: 100-continue refused by upstream (final 401, body never sent): client gets it", "SHOULD")
def _(t):
    t.script(lambda h: (h.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), h.close()))
    c = t.conn(); c.send(t.req(hdr=b"Expect: 100-continue\r\nContent-Length: 5000\r\n")); r = c.resp("POST", 4)
    if r.status != 401: raise Fail("%r (interim %r)" % (r, [i[0] for i in r.interim]))
    return "ok" + (" after 100" if r.interim else "")
# fragmentation
def splits(t, raw, body, policy=False):
    c = t.conn(); n = 0
    for i in range(1, len(raw)):
        c.send(raw[:i]); time.sleep(0.0015); c.send(raw[i:]); r = c.resp("POST"); n += 1
        if r.status != 200 or r.errors or (r.body and t.nonce.encode() not in r.body): raise Fail("split at %d (%r|%r): %r" % (i, raw[max(0, i - 8):i], raw[i:i + 8], r))
        if c.eof: c = t.conn()
    t.clean(); got = [q for q in t.U.get(t.nonce) if q.complete]; want = hashlib.sha256(body).hexdigest()
    if len(got) != n: raise Fail("%d requests upstream for %d sent" % (len(got), n))
    for q in got:
        if q.sha != want: raise Fail("a body differs")
    return "%d splits" % n
@case(V, "CL request split at every byte boundary")
def _(t): b = t.body(40); return splits(t, t.req(body=b), b)
@case(V, "chunked request (ext + trailer) split at every byte boundary")
def _(t):
    b = t.body(40); return splits(t, t.req(hdr=b"Transfer-Encoding: chunked\r\n") + b"5;e=1\r\n" + b[:5] + b"\r\n23\r\n" + b[5:] + b"\r\n0\r\nX-T: 1\r\n\r\n", b)
@case(V, "request sent one byte at a time (quickly)")
def _(t):
    b = t.body(40); raw = t.req(hdr=b"Transfer-Encoding: chunked\r\n") + t.chunked([b[:9], b[9:]]); c = t.conn()
    for i in range(len(raw)): c.send(raw[i:i + 1]); time.sleep(0.0005)
    return t.ok(c.resp("POST"), b)
@case(V, "response split at every byte boundary (upstream parser)")
def _(t):
    raw = b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n"; idx = [0]
    def up(h):
        h.read_body(); idx[0] += 1; i = idx[0]; h.send(raw[:i]); time.sleep(0.0015); h.send(raw[i:])
    t.script(up); c = t.conn()
    for i in range(1, len(raw)):
        c.send(t.req(body=b"x")); r = c.resp("POST")
        if r.status != 200 or r.errors or bytes(r.body) != b"hello world": raise Fail("split at %d: %r %r" % (i, r, bytes(r.body)))
        if c.eof: c = t.conn()
    return "%d splits" % (len(raw) - 1)
# responses
for n in (0, 1, 8192, 65537, 1 << 20, 16 << 20):
    @case(V, "response body %d bytes (CL)" % n, excl=n > (1 << 20))
    def _(t, n=n):
        b = os.urandom(1024) * (n // 1024 + 1); b = b[:n]; t.script(lambda h: (h.read_body(), h.reply(b)))
        c = t.conn(); c.send(t.req(body=b"x")); r = c.resp("POST", 30); t.ok(r)
        if r.body_len != n or r.sha != hashlib.sha256(b).hexdigest(): raise Fail("got %d bytes" % r.body_len)
        return "ok (%s)" % r.framing
@case(V, "response chunked 4 MiB in odd chunks", excl=True)
def _(t):
    b = os.urandom(4096) * 1024
    def up(h):
        h.read_body(); h.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(0, len(b), 7777): h.send(b"%x\r\n%s\r\n" % (len(b[i:i + 7777]), b[i:i + 7777]))
        h.send(b"0\r\n\r\n")
    t.script(up); c = t.conn(); c.send(t.req(body=b"x")); r = c.resp("POST", 30); t.ok(r)
    if r.sha != hashlib.sha256(b).hexdigest(): raise Fail("got %d bytes" % r.body_len)
    return "ok (%s)" % r.framing
@case(V, "response without length, ended by close: complete, and marked complete")
def _(t):
    t.script(lambda h: (h.read_body(), h.send(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\n" + b"z" * 70000), h.close()))
    c = t.conn(); c.send(t.req(body=b"x")); r = c.resp("POST"); t.ok(r)
    if r.body_len != 70000: raise Fail("got %d bytes" % r.body_len)
    return "ok (%s)" % r.framing
for st in (b"204 No Content", b"304 Not Modified"):
    @case(V, "response %s has no body; next response in sync" % st[:3].decode())
    def _(t, st=st):
        t.script(lambda h: (h.read_body(), h.send(b"HTTP/1.1 " + st + b"\r\nX: 1\r\n\r\n"))); c = t.conn(); c.send(t.req(body=b"x")); r = c.resp("POST")
        t.ok(r, status=int(st[:3]))
        if r.h("transfer-encoding"): raise Fail("Transfer-Encoding on %s" % st[:3])
        s = t.sub(); c.send(s.req(body=b"y")); s.ok(c.resp("POST"), b"y"); return "ok"
@case(V, "odd statuses pass through (299, 418, 422, 429, 503, 599) with Retry-After")
def _(t):
    for st in (299, 418, 422, 429, 503, 599):
        s = t.sub(); s.script(lambda h: (h.read_body(), h.reply(b"e", b"%d Odd" % st, b"Retry-After: 7\r\n"))); c = s.conn(); c.send(s.req(body=b"x")); r = c.resp("POST")
        s.ok(r, status=st)
        if r.h("retry-after") != [b"7"]: raise Fail("Retry-After %r" % r.h("retry-after"))
    return "ok"
@case(V, "response: several Set-Cookie lines kept apart and in order")
def _(t):
    t.script(lambda h: (h.read_body(), h.reply(b"e", extra=b"Set-Cookie: a=1\r\nSet-Cookie: b=2; Expires=Wed, 09 Jun 2021 10:18:14 GMT\r\n"))); c = t.conn(); c.send(t.req(body=b"x")); r = c.resp("POST"); t.ok(r)
    if r.h("set-cookie") != [b"a=1", b"b=2; Expires=Wed, 09 Jun 2021 10:18:14 GMT"]: raise Fail("%r" % r.h("set-cookie"))
    return "ok"
@case(V, "response status line without reason phrase")
def _(t):
    t.script(lambda h: (h.read_body(), h.send(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"))); c = t.conn(); c.send(t.req(body=b"x")); return t.ok(c.resp("POST"))
@case(V, "upstream HTTP/1.0 response: passed on, client connection usable or closed cleanly")
def _(t):
    t.script(lambda h: (h.read_body(), h.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), h.close())); c = t.conn(); c.send(t.req(body=b"x")); r = c.resp("POST"); t.ok(r); return "ok " + r.version.decode()
@case(V, "streaming: a chunk reaches the client before the next is produced (SSE)", "INFO")
def _(t):
    def up(h):
        h.read_body(); h.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ndata: 1\n\r\n"); time.sleep(1.0); h.send(b"8\r\ndata: 2\n\r\n0\r\n\r\n")
    t.script(up); c = t.conn(); t0 = time.monotonic(); c.send(t.req(body=b"x"))
    try:
        while b"data: 1" not in c.b and c.fill(t0 + 5): pass
    except socket.timeout: pass
    dt = time.monotonic() - t0; return "first event after %.2f s (%s)" % (dt, "streams" if dt < 0.7 else "BUFFERS")

# ============================================================================ 2 framing attacks
F = "2-framing"
def te(t, h, b=None, cl=True, extra=b""):
    """TE variant + CL covering the whole body, body = chunked end + a smuggled request"""
    b = (b"0\r\n\r\n" + t.smug) if b is None else b
    return t.req(hdr=h + extra + (b"Content-Length: %d\r\n" % len(b) if cl else b"")) + b
R(F, "CL + TE: chunked (CL.TE)", lambda t: te(t, b"Transfer-Encoding: chunked\r\n"), "safe", want_body=b"")
R(F, "TE: chunked + CL (TE.CL), CL shorter than the chunk", lambda t: t.req(hdr=b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + b"%x\r\n" % len(t.smug) + t.smug + b"\r\n0\r\n\r\n", "safe", want_body=lambda t: t.smug)
R(F, "CL: 0 + TE: chunked with a body", lambda t: t.req(hdr=b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n0\r\n\r\n", "safe", want_body=b"abc")
R(F, "duplicate Content-Length, different", lambda t: t.req(hdr=b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(t.smug)) + t.smug)
R(F, "duplicate Content-Length, different (large first)", lambda t: t.req(hdr=b"Content-Length: %d\r\nContent-Length: 0\r\n" % len(t.smug)) + t.smug)
R(F, "duplicate Content-Length, identical: rejected or merged", lambda t: t.req(hdr=b"Content-Length: 3\r\nContent-Length: 3\r\n") + b"abc", "safe", want_body=b"abc")
R(F, "Content-Length: 3, 3 : rejected or merged", lambda t: t.req(hdr=b"Content-Length: 3, 3\r\n") + b"abc", "safe", want_body=b"abc")
for v in (b"0, %d", b"%d, 0"):
    R(F, "Content-Length list, different: " + v.decode(), lambda t, v=v: t.req(hdr=b"Content-Length: " + v % len(t.smug) + b"\r\n") + t.smug)
for v in (b"+3", b"-3", b"0x3", b"3.0", b"3e0", b"3 3", b"3;", b"3,", b",3", b"3_", b"1_0", b"3\x0b", b"\x0c3", b"3\x00", b"three", b"", b"\"3\"", b"\xd9\xa3", b"\xa03", b"3\xa0", b"99999999999999999999", b"18446744073709551619", b"18446744073709551616", b"9223372036854775808", b"-18446744073709551613", b"3\t3", b"0003abc"):
    R(F, "Content-Length: %s" % v.decode("latin1").encode("unicode_escape").decode(), lambda t, v=v: t.req(hdr=b"Content-Length: " + v + b"\r\n") + b"abc" + t.smug, "safe" if v == b"" else "reject", level="MUST" if v else "SHOULD")
R(F, "Content-Length: 0003 (leading zeros): decimal 3 or 400", lambda t: t.req(hdr=b"Content-Length: 0003\r\n") + b"abc", "safe", want_body=b"abc")
R(F, "Content-Length : 3 (space before colon)", lambda t: t.req(hdr=b"Content-Length : 3\r\n") + b"abc")
R(F, "Content_Length: underscore look-alike + real CL", lambda t: t.req(hdr=b"Content_Length: 0\r\nContent-Length: 3\r\n") + b"abc", "safe", want_body=b"abc")
TEV = [b"chunked, chunked", b"gzip, chunked", b"gzip", b"identity", b"chunked, identity", b"chunked, gzip", b"identity, chunked", b"xchunked", b"chunkedx", b"chunk", b"\x0bchunked", b"chunked\x0b", b"\x0cchunked", b"chunked\x00", b"\x00chunked", b"\"chunked\"", b"'chunked'", b"chunked;q=1", b"chunked;", b"chunked,", b",chunked", b"chunked chunked", b"c hunked", b"chunked\xa0", b"\xa0chunked", b"\x85chunked", b"chunked\xff", b"", b"ch\xc3\xbcnked", b"=?utf-8?B?Y2h1bmtlZA==?=", b"chunked\r", b"\rchunked", b"cow\r\n chunked", b"\r\n chunked", b"\n chunked", b"none", b"deflate, gzip, chunked", b"trailers, chunked", b"CHUNKED, identity", b"\tx\tchunked"]
for v in TEV:
    R(F, "Transfer-Encoding: %s + CL" % v.decode("latin1").encode("unicode_escape").decode(), lambda t, v=v: te(t, b"Transfer-Encoding: " + v + b"\r\n"), "safe", want_body=lambda t: b"")
for v in (b"chunked, chunked", b"gzip, chunked", b"gzip", b"identity", b"chunked, identity", b"xchunked", b"chunked;q=1", b"chunked,", b",chunked", b"", b"\x0bchunked"):
    R(F, "Transfer-Encoding: %s without CL" % v.decode("latin1").encode("unicode_escape").decode(), lambda t, v=v: te(t, b"Transfer-Encoding: " + v + b"\r\n", b"3\r\nabc\r\n0\r\n\r\n", cl=False), "safe", level="MUST" if v not in (b"",) else "SHOULD")
TEN = [b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b" Transfer-Encoding: chunked", b"\tTransfer-Encoding: chunked", b"Transfer\r-Encoding: chunked", b"Transfer-Encoding\r: chunked", b"Transfer-Encoding\x00: chunked", b"\x00Transfer-Encoding: chunked", b"Transfer-Encoding\x0b: chunked", b"Transfer Encoding: chunked", b"Transfer-\xadEncoding: chunked", b"Transf\x82r-Encoding: chunked", b"Transfer-Encoding\xa0: chunked", b"\xffTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked", b"X: y\r\rTransfer-Encoding: chunked", b"Transfer-Encoding x: chunked", b"Transfer\\Encoding: chunked", b":Transfer-Encoding: chunked", b"Transfer-Encoding:: chunked", b"Transfer-Encoding\x7f: chunked", b"(Transfer-Encoding): chunked"]
for v in TEN:
    R(F, "TE name obfuscated: %s + CL" % v.decode("latin1").encode("unicode_escape").decode(), lambda t, v=v: te(t, v + b"\r\n"), "safe", absent=("transfer-encoding",) if v[:1] not in b" \t" else ())
R(F, "X: y\\nTransfer-Encoding: chunked (bare LF) + CL", lambda t: te(t, b"X: y\nTransfer-Encoding: chunked\r\n"), "safe", want_body=b"")
R(F, "Transfer_Encoding: chunked (underscore) + CL: not treated as TE", lambda t: te(t, b"Transfer_Encoding: chunked\r\n", b"abcd"), "safe", want_body=b"abcd")
R(F, "Transfer-%45ncoding: chunked + CL: not treated as TE", lambda t: te(t, b"Transfer-%45ncoding: chunked\r\n", b"abcd"), "safe", want_body=b"abcd")
R(F, "Content-Encoding: chunked + CL: not treated as TE", lambda t: te(t, b"Content-Encoding: chunked\r\n", b"abcd"), "safe", want_body=b"abcd")
R(F, "Connection: Transfer-Encoding + TE: chunked: framing survives", lambda t: t.req(hdr=b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n0\r\n\r\n", "safe", want_body=b"abc")
R(F, "Connection: Content-Length + CL: framing survives", lambda t: t.req(hdr=b"Connection: Content-Length\r\nContent-Length: 3\r\n") + b"abc", "safe", want_body=b"abc")
R(F, "two Transfer-Encoding lines: chunked / identity", lambda t: te(t, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), "safe", want_body=b"")
R(F, "two Transfer-Encoding lines: identity / chunked", lambda t: te(t, b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"), "safe", want_body=b"")
R(F, "two Transfer-Encoding lines: chunked / chunked", lambda t: te(t, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", cl=False), "safe", want_body=b"abc")
R(F, "HTTP/1.0 + Transfer-Encoding: chunked", lambda t: t.req(ver=b"HTTP/1.0", hdr=b"Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n0\r\n\r\n" + t.smug, "safe")
R(F, "HTTP/1.0 keep-alive + TE: chunked + CL", lambda t: t.req(ver=b"HTTP/1.0", hdr=b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n" % (5 + len(t.smug))) + b"0\r\n\r\n" + t.smug, "safe")
R(F, "GET with TE: chunked and smuggled tail in chunk data", lambda t: t.req(b"GET", hdr=b"Transfer-Encoding: chunked\r\n") + b"%x\r\n" % len(t.smug) + t.smug + b"\r\n0\r\n\r\n", "safe", want_body=lambda t: t.smug)
# chunk grammar
def ch(t, payload): return t.req(hdr=b"Transfer-Encoding: chunked\r\n") + payload
for n, p, lv in [
    ("size 'zz'", b"zz\r\nabc\r\n0\r\n\r\n", "MUST"), ("size -3", b"-3\r\nabc\r\n0\r\n\r\n", "MUST"), ("size +3", b"+3\r\nabc\r\n0\r\n\r\n", "MUST"), ("size 0x3", b"0x3\r\nabc\r\n0\r\n\r\n", "MUST"),
    ("size '3_'", b"3_\r\nabc\r\n0\r\n\r\n", "MUST"), ("size '0_3'", b"0_3\r\nabc\r\n0\r\n\r\n", "MUST"), ("size empty", b"\r\nabc\r\n0\r\n\r\n", "MUST"), ("size ' 3' (leading space)", b" 3\r\nabc\r\n0\r\n\r\n", "SHOULD"),
    ("size '3 3'", b"3 3\r\nabc\r\n0\r\n\r\n", "MUST"), ("size overflow 2^64+3", b"10000000000000003\r\nabc\r\n0\r\n\r\n", "MUST"), ("size FFFFFFFFFFFFFFFF", b"FFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n", "MUST"), ("size ffffffffffffffffffff3", b"ffffffffffffffffffff3\r\nabc\r\n0\r\n\r\n", "MUST"),
    ("size 8000000000000000", b"8000000000000000\r\nabc\r\n0\r\n\r\n", "MUST"), ("size 3,0", b"3,0\r\nabc\r\n0\r\n\r\n", "MUST"), ("size 3.0", b"3.0\r\nabc\r\n0\r\n\r\n", "MUST"), ("size '3\\x00'", b"3\x00\r\nabc\r\n0\r\n\r\n", "MUST"), ("size '3\\x0b'", b"3\x0b\r\nabc\r\n0\r\n\r\n", "MUST"),
    ("size 3\\r (bare CR)", b"3\rabc\r\n0\r\n\r\n", "MUST"), ("size '\\xd9\\xa3' (arabic 3)", b"\xd9\xa3\r\nabc\r\n0\r\n\r\n", "MUST"),
    ("data longer than size", b"3\r\nabcdef\r\n0\r\n\r\n", "MUST"), ("data shorter than size, CRLF eaten", b"5\r\nabc\r\n0\r\n\r\n", "MUST"), ("no CRLF after data", b"3\r\nabc0\r\n\r\n", "MUST"), ("data ended by XX", b"3\r\nabcXX0\r\n\r\n", "MUST"),
    ("data ended by bare LF", b"3\r\nabc\n0\r\n\r\n", "SHOULD"), ("data ended by bare CR", b"3\r\nabc\r0\r\n\r\n", "MUST"), ("extension with NUL", b"3;a\x00b\r\nabc\r\n0\r\n\r\n", "SHOULD"), ("extension with bare CR", b"3;a\rb\r\nabc\r\n0\r\n\r\n", "SHOULD"), ("last-chunk 0 with junk", b"3\r\nabc\r\n0zz\r\n\r\n", "MUST"),
    ("trailer with space before colon", b"3\r\nabc\r\n0\r\nX-T : 1\r\n\r\n", "SHOULD"), ("trailer without colon", b"3\r\nabc\r\n0\r\nfoo\r\n\r\n", "SHOULD"), ("trailer with NUL", b"3\r\nabc\r\n0\r\nX-T: a\x00b\r\n\r\n", "SHOULD"), ("trailer with bare CR", b"3\r\nabc\r\n0\r\nX-T: a\rb\r\n\r\n", "SHOULD")]:
    soft = n in ("size '3 3'", "data ended by bare LF", "extension with NUL", "extension with bare CR") or n.startswith("trailer")
    R(F, "chunked: " + n + (": 400 or normalised" if soft else ""), lambda t, p=p: ch(t, p), "safe" if soft else "reject", level="MUST" if soft else lv, **(dict(want_body=b"abc") if soft else {}))
for n, p in [("size '3 ' (trailing space)", b"3 \r\nabc\r\n0\r\n\r\n"), ("size line ended by bare LF", b"3\nabc\r\n0\r\n\r\n"), ("extension line ended by bare LF", b"3;a\nabc\r\n0\r\n\r\n"), ("last chunk ended by LFLF", b"3\r\nabc\r\n0\n\n"), ("'3 ;a=b' (BWS)", b"3 ;a=b\r\nabc\r\n0\r\n\r\n"), ("empty extension '3;'", b"3;\r\nabc\r\n0\r\n\r\n"), ("trailer obs-fold", b"3\r\nabc\r\n0\r\nX-T: a\r\n b\r\n\r\n"), ("trailer line ended by bare LF", b"3\r\nabc\r\n0\r\nX-T: a\n\r\n"), ("extension 'a=\"b\\nsmug\"' (LF in quoted ext)", b"3;a=\"b\n\"\r\nabc\r\n0\r\n\r\n")]:
    R(F, "chunked: %s: 400 or normalised" % n, lambda t, p=p: ch(t, p), "safe", want_body=b"abc" if "LF in quoted" not in n else None, level="MUST")
R(F, "chunked: TERM.EXT desync (bare LF ends ext, smuggled chunk)", lambda t: ch(t, b"2;\nxx\r\n%x\r\n" % (len(t.smug) + 7) + b"0\r\n\r\n" + t.smug + b"\r\n0\r\n\r\n"), "safe")
R(F, "chunked: EXT.TERM desync", lambda t: ch(t, b"2;\nxx\r\n2f\r\nyy\r\n0\r\n\r\n" + t.smug), "safe")
R(F, "chunked: one chunk-size line of 64 KiB of extension: rejected or passed", lambda t: ch(t, b"3;" + b"a" * 65536 + b"\r\nabc\r\n0\r\n\r\n"), "safe", level="SHOULD", want_body=b"abc")
R(F, "chunked: chunk-size line of 1 MiB zeros is refused", lambda t: ch(t, b"0" * (1 << 20) + b"3\r\nabc\r\n0\r\n\r\n"), "reject", level="SHOULD")
R(F, "chunked: 1 MiB of trailers is bounded", lambda t: ch(t, b"3\r\nabc\r\n0\r\n" + b"".join(b"X-T%d: " % i + b"v" * 1000 + b"\r\n" for i in range(1024)) + b"\r\n"), "reject", level="SHOULD")
R(F, "CL shorter than the bytes sent: rest is its own request (pipelining), not part of the first", lambda t: t.req(hdr=b"Content-Length: 3\r\n") + b"abcGARBAGE\r\n\r\n", "safe", want_body=b"abc")

# ================================================================================ 3 syntax attacks
S = "3-syntax"
def ln(t, line, hdr=b"", body=None, **k): return t.req(line=line.replace(b"%T", t.target), hdr=hdr, body=body, **k)
for v in (b"Foo : bar", b"Foo\t: bar", b": bar", b"Foo bar", b"Foo", b"Fo\x00o: bar", b"Foo: b\x00r", b"Fo(o: bar", b"Fo\"o: bar", b"F\xc3\xb6: bar", b"Fo\x7fo: bar", b"Fo o: bar", b"Fo\x01o: bar", b"[Foo]: bar", b"Fo/o: b", b"Fo@o: b", b"Foo=: b", b"Fo,o: b", b"{Foo}: b", b"Foo;: b"):
    R(S, "field line %s" % v.decode("latin1").encode("unicode_escape").decode(), lambda t, v=v: t.req(hdr=v + b"\r\n", body=b"abc"), "reject" if v in (b"Foo : bar", b"Foo\t: bar", b"Foo: b\x00r", b"Fo\x00o: bar", b": bar", b"Fo o: bar") else "safe", absent=(b"foo",) if v == b"Foo bar" else ())
for v in (b"\x01", b"\x08", b"\x0b", b"\x1f", b"\x7f"):
    R(S, "control byte %02x in a value: rejected or cleaned" % v[0], lambda t, v=v: t.req(hdr=b"Foo: b" + v + b"r\r\n", body=b"abc"), "safe", level="SHOULD")
R(S, "bare CR inside a value: 400 or replaced, not a line end", lambda t: t.req(hdr=b"Foo: b\rX-Evil: 1\r\n", body=b"abc"), "safe", absent=("x-evil",))
R(S, "bare CR between field lines: 400 or replaced, not a line end", lambda t: t.req(hdr=b"Foo: b\rX-Case2: 1\rX-Evil: y\r\n", body=b"abc"), "safe", absent=("x-evil", "x-case2"))
R(S, "bare LF line endings throughout: 400 or normalised", lambda t: t.req(body=b"abc").replace(b"\r\n", b"\n"), "safe", want_body=b"abc")
R(S, "one bare LF line ending among CRLF: 400 or normalised", lambda t: t.req(hdr=b"Foo: a\nBar: b\r\n", body=b"abc"), "safe", want_body=b"abc")
R(S, "bare CR line endings throughout", lambda t: t.req(body=b"abc").replace(b"\r\n", b"\r"), "reject")
R(S, "LFCR ends the head", lambda t: t.req(hdr=b"Foo: a\n\r\n", body=None), "safe")
R(S, "CR CR LF ends a line: 400 or normalised", lambda t: t.req(hdr=b"Foo: a\r\r\n", body=b"abc"), "safe", want_body=b"abc")
R(S, "obs-fold (space): 400 or replaced by SP", lambda t: t.req(hdr=b"Foo: a\r\n b\r\n", body=b"abc"), "safe", want_body=b"abc")
R(S, "obs-fold (tab): 400 or replaced by SP", lambda t: t.req(hdr=b"Foo: a\r\n\tb\r\n", body=b"abc"), "safe", want_body=b"abc")
R(S, "obs-fold in Host", lambda t: t.req(host=False, hdr=b"Host: a\r\n b\r\nContent-Length: 3\r\n") + b"abc", "safe", level="SHOULD")
R(S, "leading whitespace before first field line", lambda t: ln(t, b"POST %T HTTP/1.1\r\n Foo: bar", body=b"abc"), "safe")
R(S, "whitespace-only line in the head", lambda t: t.req(hdr=b" \r\nFoo: b\r\n", body=b"abc"), "safe", level="SHOULD")
for v in (b"GE T", b"G\x00T", b"GET\x0b", b"G(T", b"", b"G\xc3\x8bT", b"\"GET\"", b"GET:", b"G@T"):
    R(S, "method %s" % (v.decode("latin1").encode("unicode_escape").decode() or "(empty)"), lambda t, v=v: ln(t, v + b" %T HTTP/1.1"), "reject")
R(S, "method of 20000 bytes", lambda t: ln(t, b"G" * 20000 + b" %T HTTP/1.1"), "reject")
R(S, "lowercase method 'post': not turned into POST", lambda t: ln(t, b"post %T HTTP/1.1", body=b"abc"), "safe")
for v in (b"HTTP/2.0", b"HTTP/3.0", b"HTTP/0.9", b"HTTP/1", b"HTTP/1.", b"HTTP/1.1.1", b"http/1.1", b"HTTP/ 1.1", b"HTTP/11.1", b"HTTP/1.10", b"HTP/1.1", b"HTTP1.1", b"HTTPS/1.1", b"HTTP/1.1x", b"HTTP/+1.1", b"HTTP/1.\xb1", b"ICY/1.1", b"HTTP/a.b", b"HTTP/1,1", b"HTTP/01.1"):
    R(S, "version %s" % v.decode("latin1").encode("unicode_escape").decode(), lambda t, v=v: ln(t, b"POST %T " + v, body=b"abc"), "reject" if v not in (b"HTTP/01.1", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/0.9") else "safe", level="MUST")
for v in (b"HTTP/2.0", b"HTTP/3.0", b"HTTP/0.9"):
    R(S, "version %s is refused (505/400)" % v.decode(), lambda t, v=v: ln(t, b"POST %T " + v, body=b"abc"), "reject", level="SHOULD")
R(S, "version HTTP/1.2: treated as 1.1, or rejected", lambda t: ln(t, b"POST %T HTTP/1.2", body=b"abc"), "safe", want_body=b"abc")
R(S, "HTTP/0.9 simple request 'GET /path'", lambda t: b"GET " + t.gtarget + b"\r\n\r\n", "safe")
R(S, "HTTP/0.9 'GET /path' followed by header lines", lambda t: ln(t, b"GET %T"), "safe")
R(S, "two spaces in the request line: 400 or normalised", lambda t: ln(t, b"POST  %T  HTTP/1.1", body=b"abc"), "safe", want_body=b"abc")
R(S, "tab as request-line separator: 400 or normalised", lambda t: ln(t, b"POST\t%T\tHTTP/1.1", body=b"abc"), "safe", want_body=b"abc")
R(S, "trailing space after version", lambda t: ln(t, b"POST %T HTTP/1.1 ", body=b"abc"), "safe")
R(S, "leading space before method", lambda t: ln(t, b" POST %T HTTP/1.1", body=b"abc"), "safe")
R(S, "space inside the target", lambda t: ln(t, b"POST %T&a b HTTP/1.1", body=b"abc"), "reject")
R(S, "request line injection: target 'x HTTP/1.1' HTTP/1.1", lambda t: ln(t, b"POST %T HTTP/1.1 HTTP/1.1", body=b"abc"), "reject")
R(S, "tab inside the target", lambda t: ln(t, b"POST %T&a\tb HTTP/1.1", body=b"abc"), "reject", level="SHOULD")
for v in (b"\x00", b"\x01", b"\x0b", b"\x7f", b"\r", b"\x1b"):
    R(S, "byte %02x inside the target" % v[0], lambda t, v=v: ln(t, b"POST %T&a" + v + b"b HTTP/1.1", body=b"abc"), "reject", level="MUST" if v in (b"\x00", b"\r") else "SHOULD")
R(S, "bare LF inside the request line", lambda t: ln(t, b"POST %T&a\nHTTP/1.1", body=b"abc"), "safe", level="SHOULD")
R(S, "8-bit byte in target: rejected or passed unchanged", lambda t: ln(t, b"POST %T&a\xe9 HTTP/1.1", body=b"abc"), "safe")
R(S, "target without leading slash", lambda t: ln(t, b"POST foo?case=" + t.nonce.encode() + b" HTTP/1.1", body=b"abc"), "reject")
R(S, "empty target", lambda t: ln(t, b"POST  HTTP/1.1", body=b"abc"), "reject")
R(S, "target * with POST", lambda t: ln(t, b"POST * HTTP/1.1", body=b"abc"), "reject", level="SHOULD")
R(S, "fragment in target: rejected, stripped or passed", lambda t: ln(t, b"POST %T#frag HTTP/1.1", body=b"abc"), "safe")
R(S, "%-escape broken in query (%zz, %)", lambda t: ln(t, b"POST %T&a=%zz% HTTP/1.1", body=b"abc"), "safe", want_body=b"abc")
R(S, "absolute-form, other scheme (ftp://)", lambda t: ln(t, b"POST ftp://h%T HTTP/1.1", body=b"abc"), "safe")
R(S, "absolute-form with userinfo", lambda t: ln(t, b"POST http://u:p@h%T HTTP/1.1", body=b"abc"), "safe", level="SHOULD")
R(S, "absolute-form with empty host (http:///x)", lambda t: ln(t, b"POST http://%T HTTP/1.1", body=b"abc"), "reject", level="SHOULD")
R(S, "CONNECT host:port is refused", lambda t: ln(t, b"CONNECT example.invalid:443 HTTP/1.1"), "reject")
R(S, "CONNECT /path is refused", lambda t: ln(t, b"CONNECT %T HTTP/1.1"), "reject", level="SHOULD")
R(S, "missing Host in HTTP/1.1", lambda t: t.req(body=b"abc", host=False), "reject")
R(S, "two different Host lines", lambda t: t.req(body=b"abc", hdr=b"Host: evil.example\r\n"), "reject")
R(S, "two identical Host lines", lambda t: t.req(body=b"abc", hdr=b"Host: " + t.host + b"\r\n"), "reject", level="SHOULD")
for v, lv in ((b"a b", "MUST"), (b"a/b", "MUST"), (b"a@b", "INFO"), (b"a,b", "INFO"), (b"a\x00b", "MUST"), (b"a:99999x", "INFO"), (b"a#b", "SHOULD"), (b"a?b", "SHOULD"), (b"a\\b", "SHOULD"), (b"[::1", "INFO"), (b"a\tb", "MUST"), (b"http://a", "MUST"), (b"a:-1", "INFO"), (b"a:99999", "INFO"), (b"..", "SHOULD")):
    R(S, "Host: %s" % v.decode("latin1").encode("unicode_escape").decode(), lambda t, v=v: t.req(body=b"abc", host=False, hdr=b"Host: " + v + b"\r\n"), "reject", level=lv)
R(S, "Host: (empty): rejected or passed", lambda t: t.req(body=b"abc", host=False, hdr=b"Host:\r\n"), "safe")
R(S, "Host : x (space before colon) only", lambda t: t.req(body=b"abc", host=False, hdr=b"Host : x\r\n"), "reject")
R(S, "binary garbage", lambda t: bytes((i * 73 + 11) & 255 for i in range(512)) + b"\r\n\r\n", "reject")
R(S, "TLS ClientHello on the plain port", lambda t: bytes.fromhex("16030100a5010000a10303") + b"\x00" * 150, "reject")
R(S, "HTTP/2 preface without h2 support, or GOAWAY", lambda t: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", "reject", level="INFO")
R(S, "SSH banner", lambda t: b"SSH-2.0-OpenSSH_9.2\r\n", "reject")
R(S, "only CRLFs (1000 of them)", lambda t: b"\r\n" * 1000, "reject")
# limits
R(S, "URI of 100 KiB: 414/400/431 or close", lambda t: ln(t, b"POST %T&q=" + b"x" * 102400 + b" HTTP/1.1", body=b"abc"), "reject", statuses={400, 414, 431, 413})
R(S, "one header of 100 KiB: 431/400 or close", lambda t: t.req(hdr=b"X-L: " + b"v" * 102400 + b"\r\n", body=b"abc"), "reject", statuses={400, 431, 413, 494})
R(S, "1 MiB of headers: 431/400 or close", lambda t: t.req(hdr=b"".join(b"X-%d: " % i + b"v" * 1000 + b"\r\n" for i in range(1024)), body=b"abc"), "reject", statuses={400, 431, 413, 494})
R(S, "5000 short headers: 431/400 or close", lambda t: t.req(hdr=b"".join(b"X%d: v\r\n" % i for i in range(5000)), body=b"abc"), "reject", statuses={400, 431, 413, 494})
R(S, "header name of 70 KiB", lambda t: t.req(hdr=b"X" * 71680 + b": v\r\n", body=b"abc"), "reject", statuses={400, 431, 413, 494})
R(S, "16 MiB of header bytes without an end: cut off early", lambda t: t.req(hdr=b"X-L: " + b"v" * (16 << 20))[:-2], "reject", statuses={400, 431, 413, 494})
@case(S, "body over --body-limit: 413 before the body is taken, or close")
def _(t):
    if not t.A.body_limit: raise Skip("no --body-limit")
    c = t.conn(); n = t.A.body_limit + 1; c.send(t.req(hdr=b"Content-Length: %d\r\n" % n)); r = c.resp("POST", 3)
    if r.status != 413 and r.ended != "closed": raise Fail("%r" % r)
    if [q for q in t.U.get(t.nonce) if q.complete]: raise Fail("complete upstream")
    return "%r" % r
@case(S, "chunked body over --body-limit: 413 or close, upstream never completes")
def _(t):
    if not t.A.body_limit: raise Skip("no --body-limit")
    c = t.conn(); c.send(t.req(hdr=b"Transfer-Encoding: chunked\r\n")); blk = b"10000\r\n" + b"z" * 65536 + b"\r\n"
    for _ in range(t.A.body_limit // 65536 + 2):
        if not c.send(blk, 5): break
    c.send(b"0\r\n\r\n", 2); r = c.resp("POST", 4)
    if [q for q in t.U.get(t.nonce) if q.complete]: raise Fail("complete upstream, %r" % r)
    if r.status not in (413, 400) and r.ended not in ("closed", "reset"): raise Fail("%r" % r)
    return "%r" % r
@case(S, "Content-Length 10 TB announced: rejected or not buffered blindly (no crash)")
def _(t):
    c = t.conn(); c.send(t.req(hdr=b"Content-Length: 10000000000000\r\n") + b"abc"); r = c.resp("POST", 1.0); c.close(); t.alive(); return "%r" % r

# ============================================================================== 4 hop-by-hop etc.
H = "4-hop"
def fwd(t, hdr, body=b"abc", **k):
    c = t.conn(); c.send(t.req(hdr=hdr, body=body, **k)); r = c.resp("POST"); t.ok(r, body); return t.one(), r, c
@case(H, "client's Connection: close does not reach upstream as its own (no close propagated)", "SHOULD")
def _(t):
    q, r, c = fwd(t, b"Connection: close\r\n")
    if any(b"close" in v.lower() for v in q.h("connection")): raise Fail("Connection: %r" % q.h("connection"))
    return "ok"
@case(H, "Connection: X-Nominated: header removed (RFC 9110 7.6.1)", "SHOULD")
def _(t):
    q, r, c = fwd(t, b"Connection: X-Nominated\r\nX-Nominated: 1\r\n")
    if q.h("x-nominated"): raise Fail("nominated header forwarded")
    return "ok"
@case(H, "Connection: names are not copied upstream", "SHOULD")
def _(t):
    q, r, c = fwd(t, b"Connection: keep-alive, X-Foo\r\n")
    if any(b"x-foo" in v.lower() for v in q.h("connection")): raise Fail("Connection: %r" % q.h("connection"))
    return "ok"
@case(H, "Connection nominating Host/Authorization/X-Forwarded-For cannot strip what the proxy adds")
def _(t):
    c = t.conn(); c.send(t.req(hdr=b"Authorization: Bearer x\r\nConnection: Host, X-Forwarded-For, Content-Type\r\n", body=b"abc")); r = c.resp("POST")
    if r.status == 400 and not t.U.get(t.nonce): return "refused 400"
    t.ok(r, b"abc"); q = t.one()
    if len(q.h("host")) != 1: raise Fail("Host gone")
    if t.A.xff and not q.h("x-forwarded-for"): raise Fail("X-Forwarded-For stripped")
    return "ok" + ("" if q.h("authorization") else " (Authorization not forwarded)")
for n, v in (("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"), ("TE", "trailers, gzip"), ("Upgrade", "foo/1"), ("Proxy-Authorization", "Basic eA=="), ("Trailer", "X")):
    @case(H, "hop-by-hop request header %s not forwarded" % n, "SHOULD" if n in ("Keep-Alive", "Proxy-Connection", "TE", "Upgrade") else "INFO")
    def _(t, n=n, v=v):
        q, r, c = fwd(t, ("%s: %s\r\n" % (n, v)).encode())
        got = q.h(n)
        if n == "TE" and got == [b"trailers"]: return "ok (TE: trailers only)"
        if got:
            if n in ("Proxy-Authorization", "Trailer"): return "forwarded"
            raise Fail("forwarded: %r" % got)
        return "ok"
@case(H, "Upgrade: h2c + HTTP2-Settings is not passed on as an upgrade (h2c smuggling)")
def _(t):
    seen = []
    def up(h):
        h.read_body(); seen.append((h.req.h("upgrade"), h.req.h("connection"))); h.reply(b"plain")
    t.script(up); c = t.conn(); c.send(t.req(b"POST", hdr=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", body=b"abc")); r = c.resp("POST")
    if r.status == 101: raise Fail("101 to the client")
    if r.status in REJ and not seen: return "refused %d" % r.status
    t.ok(r)
    u, cn = seen[0]
    if u and any(b"upgrade" in v.lower() for v in cn): raise Fail("upgrade offered upstream: %r %r" % (u, cn))
    return "ok"
@case(H, "Upgrade: websocket: not switched unless enabled; then still framed", "INFO")
def _(t):
    c = t.conn(); c.send(t.req(b"GET", hdr=b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")); r = c.resp(); q = t.U.get(t.nonce)
    return "%r; upstream saw Upgrade: %r" % (r, q[0].h("upgrade") if q else None)
@case(H, "X-Forwarded-For carries the client address")
def _(t):
    if not t.A.xff: raise Skip("--no-xff")
    q, r, c = fwd(t, b"")
    if not q.h("x-forwarded-for"): raise Fail("none")
    return b", ".join(q.h("x-forwarded-for")).decode()
@case(H, "spoofed X-Forwarded-For: real address is last, or the spoof is dropped")
def _(t):
    if not t.A.xff: raise Skip("--no-xff")
    q, r, c = fwd(t, b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\n"); v = b", ".join(q.h("x-forwarded-for"))
    if v.split(b",")[-1].strip() in (b"", b"6.6.6.6", b"7.7.7.7"): raise Fail("%r" % v)
    return v.decode()
@case(H, "X-Forwarded-Proto set by the proxy, spoof replaced", "SHOULD")
def _(t):
    q, r, c = fwd(t, b"X-Forwarded-Proto: https\r\n"); v = q.h("x-forwarded-proto")
    if v != [b"http"]: raise Fail("%r" % v)
    return "http"
@case(H, "exactly one Host upstream")
def _(t):
    q, r, c = fwd(t, b"")
    if len(q.h("host")) != 1: raise Fail("%r" % q.h("host"))
    return q.h("host")[0].decode()
@case(H, "what the proxy adds upstream", "INFO")
def _(t):
    q, r, c = fwd(t, b""); sent = {b"host", b"x-case", b"content-type", b"content-length"}
    return ", ".join(sorted(set((n + b"=" + v[:24]).decode("latin1") for n, v in q.headers if n.lower() not in sent)))
@case(H, "what the proxy adds to the response", "INFO")
def _(t):
    q, r, c = fwd(t, b""); return ", ".join(sorted((n + b"=" + v[:24]).decode("latin1") for n, v in r.headers if n.lower() not in (b"content-type", b"content-length", b"x-echo-case")))
@case(H, "response hop-by-hop (Connection: close, Keep-Alive) stays between proxy and upstream", "SHOULD")
def _(t):
    t.script(lambda h: (h.read_body(), h.reply(b"e", extra=b"Connection: close, X-N\r\nKeep-Alive: timeout=1\r\nX-N: 1\r\n"), h.close())); c = t.conn(); c.send(t.req(body=b"x")); r = c.resp("POST"); t.ok(r)
    bad = [n for n in ("keep-alive",) if r.h(n)]
    if any(b"close" in v.lower() for v in r.h("connection")): bad.append("Connection: close")
    if bad: raise Fail("passed to the client: %s" % bad)
    return "ok" + (" (nominated X-N passed on)" if r.h("x-n") else "")
@case(H, "upstream Connection: close does not break the client's keep-alive")
def _(t):
    t.script(lambda h: (h.read_body(), h.reply(b"e", extra=b"Connection: close\r\n"), h.close())); c = t.conn()
    for i in range(5):
        c.send(t.req(body=b"x")); r = c.resp("POST")
        if r.status != 200: raise Fail("request %d: %r" % (i, r))
        if c.eof or any(b"close" in v.lower() for v in r.h("connection")): return "client connection closed cleanly after %d" % (i + 1)
    return "ok"
@case(H, "response Trailer/chunk trailers do not corrupt the response")
def _(t):
    t.script(lambda h: (h.read_body(), h.send(b"HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n"))); c = t.conn(); c.send(t.req(body=b"x")); r = c.resp("POST"); t.ok(r)
    if bytes(r.body) != b"abc": raise Fail("%r" % bytes(r.body))
    s = t.sub(); c.send(s.req(body=b"y")); s.ok(c.resp("POST"), b"y"); return "ok (%s)" % ("forwarded" if r.trailers else "dropped")
@case(H, "header injection: CR LF in percent form stays encoded")
def _(t):
    q, r, c = fwd(t, b"", target=t.target + b"&x=%0d%0aX-Inj:%201")
    if q.h("x-inj"): raise Fail("injected")
    return "ok"

# ========================================================================== 5 slow / aborting clients
C = "5-client"
def need(v, what):
    if not v: raise Skip("no %s" % what)
@case(C, "head sent one byte per 0.4 s: cut at --head-timeout although bytes keep coming (slowloris)")
def _(t):
    need(t.A.head_timeout, "--head-timeout"); c = t.conn(); raw = t.req(hdr=b"X-Pad: " + b"p" * 4000 + b"\r\n"); t0 = time.monotonic(); lim = t.A.head_timeout + 3
    for i in range(len(raw)):
        if not c.send(raw[i:i + 1]): break
        try:
            if not c.fill(time.monotonic() + 0.4): break
            break
        except socket.timeout: pass
        if time.monotonic() - t0 > lim: raise Fail("still open after %.1f s" % (time.monotonic() - t0))
    dt = time.monotonic() - t0
    if t.U.get(t.nonce): raise Fail("reached upstream")
    return "cut after %.1f s %s" % (dt, bytes(c.b[:30]).split(b"\r")[0].decode())
@case(C, "connection opened, nothing sent: closed (--head-timeout/--keepalive-timeout)")
def _(t):
    need(t.A.head_timeout, "--head-timeout"); c = t.conn(); dt = c.wait_close(max(t.A.head_timeout, t.A.keepalive_timeout) + 3)
    if dt is None: raise Fail("still open")
    return "closed after %.1f s %s" % (dt, bytes(c.b[:20]).split(b"\r")[0].decode())
@case(C, "idle keep-alive connection closed after --keepalive-timeout, silently")
def _(t):
    need(t.A.keepalive_timeout, "--keepalive-timeout"); c = t.conn(); c.send(t.req(body=b"x")); t.ok(c.resp("POST")); dt = c.wait_close(t.A.keepalive_timeout + 3)
    if dt is None: raise Fail("still open")
    return "closed after %.1f s%s" % (dt, " sent %r" % bytes(c.b[:24]) if c.b else "")
@case(C, "idle connection is not cut early (usable at 0.5 x --keepalive-timeout)")
def _(t):
    need(t.A.keepalive_timeout, "--keepalive-timeout"); c = t.conn(); c.send(t.req(body=b"x")); t.ok(c.resp("POST")); time.sleep(t.A.keepalive_timeout * 0.5); s = t.sub(); c.send(s.req(body=b"y")); return s.ok(c.resp("POST"), b"y")
@case(C, "body stalls half-way: 408/close within --body-timeout, upstream never completes and is freed")
def _(t):
    need(t.A.body_timeout, "--body-timeout"); c = t.conn(); c.send(t.req(hdr=b"Content-Length: 1000\r\n") + b"x" * 500); r = c.resp("POST", t.A.body_timeout + 3)
    if r.ended == "timeout": raise Fail("still open")
    if r.status and r.status not in (408, 400, 504, 502): raise Fail("%r" % r)
    time.sleep(0.3); u = t.U.get(t.nonce)
    if any(q.complete for q in u): raise Fail("complete upstream")
    if any(q.conn.t_end is None for q in u): raise Fail("upstream connection still open")
    return "%r" % r
@case(C, "chunked body stalls inside a chunk: 408/close within --body-timeout")
def _(t):
    need(t.A.body_timeout, "--body-timeout"); c = t.conn(); c.send(t.req(hdr=b"Transfer-Encoding: chunked\r\n") + b"10\r\nxxx"); r = c.resp("POST", t.A.body_timeout + 3)
    if r.ended == "timeout": raise Fail("still open")
    time.sleep(0.3); u = t.U.get(t.nonce)
    if any(q.complete for q in u): raise Fail("complete upstream")
    return "%r" % r
@case(C, "slow but steady body (10 x 0.3 s) is accepted")
def _(t):
    c = t.conn(); c.send(t.req(hdr=b"Content-Length: 100\r\n"))
    for i in range(10): c.send(b"x" * 10); time.sleep(0.3)
    return t.ok(c.resp("POST"), b"x" * 100)
@case(C, "200 slowloris connections do not block a normal client", excl=True)
def _(t):
    cs = [t.conn() for _ in range(200)]
    for c in cs: c.send(b"POST / HTTP/1.1\r\nHost: x\r\nX-A: ")
    t0 = time.monotonic(); t.alive(); dt = time.monotonic() - t0
    for c in cs: c.close()
    if dt > 2: raise Fail("%.1f s" % dt)
    return "%.0f ms" % (dt * 1000)
def gone(t, how, level_wait):
    """client leaves while upstream works; when is the upstream connection freed?"""
    res = {}
    def up(h):
        h.read_body(); res["eof"] = h.wait_eof(level_wait); h.close()
    t.script(up); c = t.conn(); c.send(t.req(body=b"abc")); 
    if not t.U.wait(t.nonce, timeout=3): raise Fail("never reached upstream")
    time.sleep(0.2); (c.rst if how == "rst" else c.close)()
    end = time.monotonic() + level_wait + 1
    while "eof" not in res and time.monotonic() < end: time.sleep(0.05)
    if not res.get("eof"): raise Fail("upstream not freed within %.0f s" % level_wait)
    if res["eof"] > 2.5: raise Fail("upstream freed only after %.1f s" % res["eof"])
    return "upstream freed after %.2f s" % res["eof"]
@case(C, "client closes (FIN) while waiting: upstream freed within 2.5 s", "SHOULD")
def _(t): return gone(t, "fin", 6)
@case(C, "client resets (RST) while waiting: upstream freed within 2.5 s")
def _(t): return gone(t, "rst", 6)
@case(C, "client disconnects mid-body: upstream never completes, and is freed")
def _(t):
    c = t.conn(); c.send(t.req(hdr=b"Content-Length: 100000\r\n") + b"x" * 50000); time.sleep(0.4); c.close(); time.sleep(1.5); u = t.U.get(t.nonce)
    if any(q.complete for q in u): raise Fail("complete upstream")
    if any(q.conn.t_end is None for q in u): raise Fail("upstream connection still open")
    return "upstream saw %d bytes" % u[0].body_len if u else "upstream never opened"
@case(C, "client disconnects mid-chunked-body: no fake last-chunk sent upstream")
def _(t):
    c = t.conn(); c.send(t.req(hdr=b"Transfer-Encoding: chunked\r\n") + b"c350\r\n" + b"x" * 50000 + b"\r\n"); time.sleep(0.4); c.close(); time.sleep(1.5); u = t.U.get(t.nonce)
    if any(q.complete for q in u): raise Fail("complete upstream")
    if any(q.conn.t_end is None for q in u): raise Fail("upstream connection still open")
    return "ok"
@case(C, "client disconnects mid-head: nothing upstream")
def _(t):
    c = t.conn(); c.send(t.req()[:-4]); time.sleep(0.1); c.close(); time.sleep(0.4)
    if t.U.get(t.nonce): raise Fail("reached upstream")
    return "ok"
@case(C, "half-close after a complete request: answered or closed, never hung", "MUST")
def _(t):
    t.script(lambda h: (h.read_body(), time.sleep(0.5), h.reply(b"late"))); c = t.conn(); c.send(t.req(body=b"x")); c.shut(); r = c.resp("POST", 6)
    if r.ended == "timeout": raise Fail("hung")
    return "answered %d" % r.status if r.status else "closed without answer"
@case(C, "half-close mid-body: not completed upstream")
def _(t):
    c = t.conn(); c.send(t.req(hdr=b"Content-Length: 100\r\n") + b"x" * 10); c.shut(); r = c.resp("POST", 8); time.sleep(0.2)
    if any(q.complete for q in t.U.get(t.nonce)): raise Fail("complete upstream")
    if r.ended == "timeout": raise Fail("hung")
    return "%r" % r
@case(C, "client leaves mid-response (16 MiB): upstream freed, proxy fine", "MUST", excl=True)
def _(t):
    res = {}
    def up(h):
        h.read_body(); 
        try:
            h.send(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n"); n = 0
            for i in range(1024): h.send(b"z" * 65536); n += 65536
            res["sent"] = n
        except OSError: res["sent"] = n
        h.close()
    t.script(up); c = t.conn(rcvbuf=16384); c.send(t.req(body=b"x")); c.fill(time.monotonic() + 5); time.sleep(0.3); c.close()
    end = time.monotonic() + 8
    while "sent" not in res and time.monotonic() < end: time.sleep(0.05)
    if "sent" not in res: raise Fail("upstream still blocked after 8 s")
    t.alive(); return "upstream got rid of %d KiB" % (res["sent"] >> 10)
@case(C, "client that does not read: how much response is buffered by the proxy (back-pressure)", "INFO", excl=True)
def _(t):
    res = {"n": 0}
    def up(h):
        h.read_body(); h.conn.sock.settimeout(2)
        h.conn.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 134217728\r\n\r\n")
        try:
            for i in range(2048): res["n"] += h.conn.sock.send(b"z" * 65536)
        except OSError: pass
        res["done"] = 1; h.close()
    t.script(up); c = t.conn(rcvbuf=16384); c.send(t.req(body=b"x")); end = time.monotonic() + 8
    while "done" not in res and time.monotonic() < end: time.sleep(0.1)
    c.close(); return "%.1f MiB taken from upstream" % (res["n"] / 1048576)
@case(C, "upstream that does not read: how much request body is buffered by the proxy", "INFO", excl=True)
def _(t):
    if t.A.max_body < 64 << 20: raise Skip("--max-body")
    t.script(lambda h: (time.sleep(3), h.close())); c = t.conn(); c.send(t.req(hdr=b"Content-Length: 67108864\r\n")); n = 0; c.s.settimeout(1.2)
    try:
        while n < 67108864: n += c.s.send(b"z" * min(65536, 67108864 - n))
    except OSError: pass
    c.close(); return "%.1f MiB taken from client" % (n / 1048576)

# ================================================================================ 6 bad upstreams
U6 = "6-upstream"
def upcase(name, up, level="MUST", excl=True, want=None, check=None, timeout=8, probe=True):
    """send one request whose upstream misbehaves; the client must get 5xx / a detectable truncation / want; then 8 fresh requests must be clean"""
    def fn(t):
        t.script(up); c = t.conn(); c.send(t.req(body=b"abc")); r = c.resp("POST", timeout)
        if r.ended == "timeout": raise Fail("hung: %r" % r)
        if r.errors: raise Fail("malformed response reached the client: %r" % r)
        d = check(t, r, c) if check else None
        if d is None:
            if want and r.status not in want: raise Fail("%r, want %s" % (r, sorted(want)))
            d = "%r" % r
        n = len([q for q in t.U.get(t.nonce)])
        if n > 1: raise Fail("POST sent upstream %d times" % n)
        if probe:
            for i in range(8):
                s = t.sub(); c2 = s.conn() if i % 2 == 0 or c2.eof else c2; b = s.body(10 + i); c2.send(s.req(body=b)); r2 = c2.resp("POST")
                if r2.h("x-evil"): raise Fail("RESPONSE SMUGGLED to another client")
                try: s.ok(r2, b)
                except Fail as e: raise Fail("afterwards request %d: %s" % (i, e))
        return d
    CASES.append(dict(cat=U6, name=name, level=level, excl=excl, fn=fn))
E5 = {500, 502, 503, 504}
EVIL = b"HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil"
def S_(b, close=True):
    def up(h):
        h.read_body(); h.send(b)
        if close: h.close()
    return up
def truncated(t, r, c):
    if r.status in E5: return "%d" % r.status
    if r.complete: raise Fail("truncated response was presented as complete (%r, %s)" % (r, r.framing))
    return "cut off visibly (%s)" % r.ended
upcase("garbage instead of a response", S_(b"\x00\x01garbage\r\n\r\n"), want=E5)
upcase("SSH banner", S_(b"SSH-2.0-OpenSSH\r\n\r\n"), want=E5)
upcase("closes without a byte", lambda h: (h.read_body(), h.close()), want=E5)
upcase("resets without a byte", lambda h: (h.read_body(), h.rst()), want=E5)
upcase("closes inside the status line", S_(b"HTTP/1.1 20"), want=E5)
upcase("closes inside the headers", S_(b"HTTP/1.1 200 OK\r\nContent-Le"), want=E5)
upcase("Content-Length body truncated by close", S_(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), check=truncated)
upcase("Content-Length body truncated by reset", lambda h: (h.read_body(), h.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"z" * 50000), time.sleep(0.2), h.rst()), check=truncated)
upcase("chunked body truncated (no last chunk)", S_(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), check=truncated)
upcase("chunked body truncated inside a chunk", S_(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhello"), check=truncated)
upcase("chunked body with a bad chunk size", S_(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"), check=truncated)
upcase("chunked body, chunk size overflow", S_(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"), check=truncated)
def sane(t, r, c):
    if r.status in E5: return "%d" % r.status
    if r.status == 200: return "200 cleaned (%s, %d bytes)" % (r.framing, r.body_len)
    if not r.status: raise Fail("connection closed without a status")
    return "%r" % r
upcase("both Content-Length and Transfer-Encoding", S_(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", False), check=sane)
upcase("two different Content-Length", S_(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello"), want=E5)
for v in (b"-5", b"+5", b"5, 6", b"abc", b"99999999999999999999", b"0x5"):
    upcase("Content-Length: %s" % v.decode(), S_(b"HTTP/1.1 200 OK\r\nContent-Length: " + v + b"\r\n\r\nhello"), want=E5, level="MUST")
upcase("Transfer-Encoding: gzip", S_(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello"), check=sane, level="SHOULD")
upcase("Transfer-Encoding: chunked, chunked", S_(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), check=sane)
upcase("HTTP/1.0 + Transfer-Encoding: chunked", S_(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), check=sane)
upcase("NUL in a response header", S_(b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 2\r\n\r\nok"), check=sane)
upcase("bare CR in a response header (response splitting)", S_(b"HTTP/1.1 200 OK\r\nX-A: a\rX-Evil: 1\r\nContent-Length: 2\r\n\r\nok"), check=sane, level="SHOULD")
upcase("bare LF line ends in the response head", S_(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"), check=sane)
upcase("obs-fold in a response header", S_(b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 2\r\n\r\nok"), check=sane)
upcase("space before colon in a response header", S_(b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"), check=sane)
upcase("header line without colon", S_(b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok"), check=sane, level="SHOULD")
for v in (b"HTTP/1.1 2000 OK", b"HTTP/1.1 99 Low", b"HTTP/1.1 abc OK", b"HTTP/2 200 OK", b"HTTP/9.9 200 OK", b"ICY 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 20", b"200 OK"):
    upcase("status line '%s'" % v.decode(), S_(v + b"\r\nContent-Length: 2\r\n\r\nok"), check=sane, level="INFO" if v == b"HTTP/1.1 2000 OK" else "SHOULD" if v in (b"HTTP/1.1 99 Low", b"ICY 200 OK", b"HTTP/1.1 20") else "MUST")
upcase("1xx before the final answer (102, 103)", S_(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", False), want={200})
upcase("unasked 100 Continue before the final answer", S_(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", False), want={200})
upcase("1xx carrying Content-Length / Transfer-Encoding", S_(b"HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", False), check=sane)
upcase("1000 x 100 Continue, then the answer", S_(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", False), check=sane, level="SHOULD")
upcase("101 Switching Protocols nobody asked for", S_(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nrawbytes"), check=lambda t, r, c: "%r" % r if r.status != 101 else (_ for _ in ()).throw(Fail("101 passed to the client")), level="SHOULD")
upcase("response headers of 32 KiB: passed or 502", S_(b"HTTP/1.1 200 OK\r\nX-L: " + b"v" * 32768 + b"\r\nContent-Length: 2\r\n\r\nok"), check=sane)
upcase("response headers of 1 MiB: 502", S_(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: " % i + b"v" * 1000 + b"\r\n" for i in range(1024)) + b"Content-Length: 2\r\n\r\nok"), want=E5)
upcase("5000 short response headers: 502 or passed", S_(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X%d: v\r\n" % i for i in range(5000)) + b"Content-Length: 2\r\n\r\nok"), check=sane)
upcase("endless header (8 MiB without an end): 502", S_(b"HTTP/1.1 200 OK\r\nX-L: " + b"v" * (8 << 20)), want=E5)
# response smuggling / pool poisoning
upcase("extra bytes after a Content-Length body (a whole second response)", S_(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + EVIL, False), check=sane)
upcase("extra bytes after a chunked body", S_(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + EVIL, False), check=sane)
upcase("204 with a body", S_(b"HTTP/1.1 204 No Content\r\nContent-Length: %d\r\n\r\n" % len(EVIL) + EVIL, False), check=lambda t, r, c: "%r" % r)
upcase("304 with a body", S_(b"HTTP/1.1 304 Not Modified\r\n\r\n" + EVIL, False), check=lambda t, r, c: "%r" % r)
def late(h):
    h.read_body(); h.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    time.sleep(0.15)
    try: h.send(EVIL)
    except OSError: h.close()
upcase("unsolicited response on an idle pooled connection", late, check=lambda t, r, c: (time.sleep(0.4), "%r" % r)[1])
@case(U6, "HEAD answered with a body upstream: next answers not shifted", excl=True)
def _(t):
    t.script(S_(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(EVIL) + EVIL, False)); c = t.conn(); c.send(t.req(b"HEAD")); r = c.resp("HEAD")
    if r.status in (401, 403, 404, 405, 501) and not t.A.strict_methods and not t.U.get(t.nonce): return "refused by policy %d" % r.status
    for i in range(8):
        s = t.sub(); c2 = s.conn(); c2.send(s.req(body=b"x")); r2 = c2.resp("POST")
        if r2.h("x-evil"): raise Fail("RESPONSE SMUGGLED")
        s.ok(r2, b"x")
    return "%r" % r
@case(U6, "upstream closes idle pooled connections: no error reaches clients (20 x)", excl=True)
def _(t):
    for i in range(20):
        s = t.sub(); s.script(lambda h: (h.read_body(), h.reply(b"bye"), h.close())); c = s.conn(); c.send(s.req(body=b"x")); s.ok(c.resp("POST")); time.sleep(0.03)
    return "ok"
@case(U6, "upstream resets idle pooled connections: no error reaches clients (20 x)", excl=True)
def _(t):
    for i in range(20):
        s = t.sub(); s.script(lambda h: (h.read_body(), h.reply(b"bye"), time.sleep(0.02), h.rst())); c = s.conn(); c.send(s.req(body=b"x")); s.ok(c.resp("POST")); time.sleep(0.06)
    return "ok"
# early answers
def early(h):
    h.send(b"HTTP/1.1 413 Too Large\r\nX-Echo-Case: " + h.req.nonce.encode() + b"\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"); time.sleep(0.3); h.close()
@case(U6, "early 413 + close while 8 MiB body is being sent: client gets the 413", "SHOULD", excl=True)
def _(t):
    t.script(early); c = t.conn(); n = 8 << 20; th = threading.Thread(target=lambda: (c.send(t.req(hdr=b"Content-Length: %d\r\n" % n)), c.send(b"z" * n))); th.start(); r = c.resp("POST", 8); th.join(1)
    if r.ended == "timeout": raise Fail("hung")
    if r.status != 413: raise Fail("%r" % r)
    return "%r" % r
@case(U6, "early 413 while the client still waits to send: no hang, no desync", excl=True)
def _(t):
    t.script(early); c = t.conn(); c.send(t.req(hdr=b"Content-Length: 100000\r\n") + b"z" * 10); r = c.resp("POST", 3)
    d = "%r" % r
    rest = t.smug + b"z" * (99990 - len(t.smug))
    c.send(rest)
    if r.ended == "timeout": r = c.resp("POST", 5); d = "answered only after the whole body: %r" % r
    time.sleep(0.4); t.clean()
    for i in range(6): t.alive()
    return d
@case(U6, "early 200 keep-alive before the body: pool not poisoned", excl=True)
def _(t):
    def up(h):
        h.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    t.script(up); c = t.conn(); c.send(t.req(hdr=b"Content-Length: 2000\r\n") + b"z" * 1000); time.sleep(0.2); c.send(b"z" * 1000); r = c.resp("POST", 6)
    for i in range(6): t.alive()
    return "%r" % r
# timing
@case(U6, "upstream never answers: 504 (or 503) within --upstream-timeout, connection freed")
def _(t):
    need(t.A.upstream_timeout, "--upstream-timeout"); res = {}
    def up(h): h.read_body(); res["eof"] = h.wait_eof(t.A.upstream_timeout + 4); h.close()
    t.script(up); c = t.conn(); t0 = time.monotonic(); c.send(t.req(body=b"x")); r = c.resp("POST", t.A.upstream_timeout + 3); dt = time.monotonic() - t0
    if r.status not in (503, 504): raise Fail("%r after %.1f s" % (r, dt))
    time.sleep(0.3)
    if not res.get("eof"): raise Fail("upstream connection not closed")
    if len(t.U.get(t.nonce)) > 1: raise Fail("POST retried")
    return "%d after %.1f s" % (r.status, dt)
@case(U6, "upstream stalls inside the body: visibly cut within --upstream-timeout")
def _(t):
    need(t.A.upstream_timeout, "--upstream-timeout")
    def up(h): h.read_body(); h.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"); h.wait_eof(t.A.upstream_timeout + 4); h.close()
    t.script(up); c = t.conn(); t0 = time.monotonic(); c.send(t.req(body=b"x")); r = c.resp("POST", t.A.upstream_timeout + 3); dt = time.monotonic() - t0
    if r.ended == "timeout": raise Fail("still open after %.1f s" % dt)
    return truncated(t, r, c) + " after %.1f s" % dt
@case(U6, "upstream stalls inside the head: 504/502 within --upstream-timeout")
def _(t):
    need(t.A.upstream_timeout, "--upstream-timeout")
    def up(h): h.read_body(); h.send(b"HTTP/1.1 200 OK\r\nConte"); h.wait_eof(t.A.upstream_timeout + 4); h.close()
    t.script(up); c = t.conn(); c.send(t.req(body=b"x")); r = c.resp("POST", t.A.upstream_timeout + 3)
    if r.status not in E5: raise Fail("%r" % r)
    return "%r" % r
@case(U6, "answer dripped one byte per 30 ms arrives whole")
def _(t):
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + b"d" * 20
    def up(h):
        h.read_body()
        for i in range(len(raw)): h.send(raw[i:i + 1]); time.sleep(0.03)
    t.script(up); c = t.conn(); c.send(t.req(body=b"x")); r = c.resp("POST", 10); t.ok(r); return "ok"
@case(U6, "50 concurrent slow (1 s) requests run in parallel", excl=True)
def _(t):
    ss = [t.sub() for _ in range(50)]; cs = []
    for s in ss:
        s.script(lambda h: (h.read_body(), time.sleep(1.0), h.reply(b"s"))); c = s.conn(); c.send(s.req(body=b"x")); cs.append(c)
    t0 = time.monotonic()
    for s, c in zip(ss, cs): s.ok(c.resp("POST", 15))
    dt = time.monotonic() - t0
    if dt > 4: raise Fail("%.1f s" % dt)
    return "%.1f s" % dt
@case(U6, "upstream down: 502/503 quickly; recovers when it is back", excl=True)
def _(t):
    t.U.down(); time.sleep(0.1)
    try:
        c = t.conn(); t0 = time.monotonic(); c.send(t.req(body=b"x")); r = c.resp("POST", 10); dt = time.monotonic() - t0
    finally: t.U.open()
    if r.status not in (502, 503, 504): raise Fail("%r" % r)
    t1 = time.monotonic(); last = None
    while time.monotonic() - t1 < t.A.recover:
        s = t.sub(); c = s.conn(); c.send(s.req(body=b"x")); last = c.resp("POST", 5)
        if last.status == 200: return "%d after %.2f s; back after %.1f s" % (r.status, dt, time.monotonic() - t1)
        time.sleep(0.25)
    raise Fail("not back after %d s: %r" % (t.A.recover, last))
# final
FRAMING = re.compile(r"Content-Length|Transfer-Encoding|bare (CR|LF)|chunk|bad request line")
@case("7-final", "no ambiguous framing reached upstream in the whole run", excl=True)
def _(t):
    bad = sorted(set(t.U.names.get(r.nonce, "?") for c in t.U.conns for r in c.reqs if any(FRAMING.search(e) for e in r.errors)))
    if bad: raise Fail("%d cases: %s" % (len(bad), "; ".join(bad)))
    return "%d upstream connections, %d requests" % (len(t.U.conns), sum(len(c.reqs) for c in t.U.conns))
@case("7-final", "no strictly invalid byte reached upstream in the whole run", "INFO", excl=True)
def _(t):
    bad = sorted(set(t.U.names.get(r.nonce, "?") for c in t.U.conns for r in c.reqs if r.errors))
    if bad: raise Fail("%d cases: %s" % (len(bad), "; ".join(bad)))
    return "ok"
@case("7-final", "no smuggled request in the whole run", excl=True)
def _(t):
    bad = sorted(set(t.U.names.get(r.nonce, "?") for c in t.U.conns for r in c.reqs if r.smug))
    if bad: raise Fail("%d cases: %s" % (len(bad), "; ".join(bad)))
    return "ok"
@case("7-final", "proxy alive; upstream connections after the run", excl=True)
def _(t):
    t.alive(); time.sleep(1.0); return "%d upstream connections open" % sum(1 for c in t.U.conns if c.t_end is None)


# calibrated: nginx 1.22.1, HAProxy 2.6.12 and Envoy 1.40 all pass these although the RFC only says SHOULD/MAY
PROMOTE = {"all token characters in a field name", "leading empty line (CRLF) before request line", "absolute-form target whose authority differs from Host: authority wins or 400",
 "Connection: close followed by pipelined request: second one is not answered", "Content-Length: ", "Transfer-Encoding:  without CL", "chunked: size ' 3' (leading space)", "chunked: one chunk-size line of 64 KiB of extension: rejected or passed",
 "whitespace-only line in the head", "tab inside the target", "byte 01 inside the target", "byte 0b inside the target", "byte 1b inside the target", "bare LF inside the request line", "absolute-form with userinfo", "CONNECT /path is refused",
 "client's Connection: close does not reach upstream as its own (no close propagated)", "hop-by-hop request header TE not forwarded", "X-Forwarded-Proto set by the proxy, spoof replaced", "Transfer-Encoding: gzip",
 "bare CR in a response header (response splitting)", "header line without colon", "early 413 + close while 8 MiB body is being sent: client gets the 413"}
for _c in CASES:
    if _c["name"] in PROMOTE: _c["level"] = "MUST"


# ------------------------------------------------------------------------------------------ runner
def run_case(A, U, cs):
    t = T(A, U); t0 = time.monotonic(); U.names[t.nonce] = cs["name"]
    try:
        d = cs["fn"](t); v = "INFO" if cs["level"] == "INFO" else "PASS"
    except Skip as e: v, d = "SKIP", str(e)
    except Fail as e: v, d = ("INFO" if cs["level"] == "INFO" else "FAIL"), str(e)
    except Exception as e: v, d = "ERROR", "%s: %s %s" % (type(e).__name__, e, traceback.format_exc().splitlines()[-3].strip())
    finally:
        for c in t.conns:
            try: c.close()
            except OSError: pass
    return dict(cat=cs["cat"], name=cs["name"], level=cs["level"], verdict=v, detail=str(d)[:300], secs=round(time.monotonic() - t0, 2))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("host"); p.add_argument("port", type=int)
    p.add_argument("--upstream-port", required=True, help="port, or comma-separated ports, the proxy uses as backend(s)")
    p.add_argument("--path", default="/v2/models/echo/infer"); p.add_argument("--get-path", default=None, help="path for GET/HEAD/OPTIONS (default: --path)")
    p.add_argument("--host-header", default=None); p.add_argument("--header", action="append", default=[], help="extra request header line, e.g. 'Authorization: Bearer x'")
    p.add_argument("--content-type", default="application/octet-stream"); p.add_argument("--json", action="store_true", help="bodies are V2 JSON where long enough")
    p.add_argument("--head-timeout", type=float, default=0); p.add_argument("--body-timeout", type=float, default=0); p.add_argument("--keepalive-timeout", type=float, default=0); p.add_argument("--upstream-timeout", type=float, default=0)
    p.add_argument("--max-body", type=int, default=64 << 20, help="largest body the proxy is configured to accept"); p.add_argument("--body-limit", type=int, default=0, help="the proxy's configured limit: one byte more must be 413")
    p.add_argument("--recover", type=float, default=15); p.add_argument("--no-xff", dest="xff", action="store_false"); p.add_argument("--strict-methods", action="store_true")
    p.add_argument("--only", default="", help="regex on 'category name'"); p.add_argument("--skip", default=""); p.add_argument("--jobs", type=int, default=6); p.add_argument("--json-out"); p.add_argument("-v", action="store_true"); p.add_argument("--list", action="store_true")
    A = p.parse_args()
    if not (A.host.startswith("127.") or A.host in ("::1", "localhost")): sys.exit("refusing: only loopback targets")
    A.path = A.path.encode(); A.get_path = (A.get_path or A.path.decode()).encode(); A.host_header = (A.host_header or "%s:%d" % (A.host, A.port)).encode()
    A.extra = b"".join(h.encode() + b"\r\n" for h in A.header); A.ctype = (A.content_type if not A.json else "application/json").encode()
    sel = [c for c in CASES if re.search(A.only, c["cat"] + " " + c["name"]) and not (A.skip and re.search(A.skip, c["cat"] + " " + c["name"]))]
    if A.list:
        for c in sel: print(c["cat"], c["level"], c["name"])
        print(len(sel)); return 0
    U = Upstream([int(x) for x in A.upstream_port.split(",")])
    t = T(A, U); end = time.monotonic() + 20
    while True:
        try: t.alive(); break
        except Exception as e:
            if time.monotonic() > end: sys.exit("the proxy does not forward a plain request: %s" % e)
            time.sleep(0.5)
    t0 = time.monotonic(); res = {}
    par = [c for c in sel if not c["excl"]]; ser = [c for c in sel if c["excl"]]
    def show(r):
        if A.v or r["verdict"] in ("FAIL", "ERROR"): print("%-5s %-6s %-10s %s  -- %s" % (r["verdict"], r["level"], r["cat"], r["name"][:90], r["detail"]), flush=True)
    with cf.ThreadPoolExecutor(A.jobs) as ex:
        for cs, r in zip(par, ex.map(lambda c: run_case(A, U, c), par)): res[id(cs)] = r; show(r)
    for cs in ser: r = run_case(A, U, cs); res[id(cs)] = r; show(r)
    out = [res[id(c)] for c in sel]
    if A.json_out: json.dump(out, open(A.json_out, "w"), indent=1)
    print("\n%-12s %6s %6s %6s %6s %6s" % ("category", "PASS", "FAIL", "ERROR", "SKIP", "INFO"))
    for cat in sorted(set(r["cat"] for r in out)) + ["ALL"]:
        rs = [r for r in out if cat in ("ALL", r["cat"])]
        print("%-12s %6d %6d %6d %6d %6d" % ((cat,) + tuple(sum(r["verdict"] == v for r in rs) for v in ("PASS", "FAIL", "ERROR", "SKIP", "INFO"))))
    for lv in ("MUST", "SHOULD"):
        rs = [r for r in out if r["level"] == lv and r["verdict"] in ("PASS", "FAIL", "ERROR")]
        print("%s: %d/%d passed" % (lv, sum(r["verdict"] == "PASS" for r in rs), len(rs)))
    print("%.0f s" % (time.monotonic() - t0))
    bad = [r for r in out if r["level"] == "MUST" and r["verdict"] in ("FAIL", "ERROR")]
    return 1 if bad else 0


if __name__ == "__main__": sys.exit(main())
