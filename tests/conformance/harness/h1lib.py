# ruff: noqa
# fmt: off
"""Shared parts of the black-box HTTP/1.1 proxy harness (stdlib only, Python >= 3.9).

Upstream : a raw-socket origin that parses every byte STRICTLY (RFC 9112, no leniency) and records it.
Conn     : a raw-socket client with a STRICT response reader.
Only ever listens on / connects to 127.0.0.1.
"""
import hashlib, os, re, socket, struct, threading, time

TOKEN = re.compile(rb"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$")
NONCE = re.compile(rb"N[0-9a-f]{12}Z")
CHUNK = re.compile(rb"^([0-9A-Fa-f]{1,16})([ \t]*;.*)?$")
KEEP = 1 << 16


def new_nonce():
    return "N" + os.urandom(6).hex() + "Z"


def fvals(headers, name):
    name = name.lower()
    return [v for n, v in headers if n.lower() == name]


def check_field_line(line, errs, where):
    """strict field-line check; returns (name, value) or None"""
    if line[:1] in (b" ", b"\t"):
        errs.append("%s: obs-fold / leading whitespace %r" % (where, line[:40])); return None
    n, sep, v = line.partition(b":")
    if not sep:
        errs.append("%s: field line without colon %r" % (where, line[:40])); return None
    if not TOKEN.match(n):
        errs.append("%s: bad field name %r" % (where, n[:40]))
    if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", v):
        errs.append("%s: control byte in value of %r: %r" % (where, n[:30], v[:40]))
    return n, v.strip(b" \t")


# ------------------------------------------------------------------------------------- upstream
class UpReq:
    def __init__(s, conn):
        s.conn = conn; s.nonce = None; s.method = s.target = s.version = b""; s.headers = []; s.head = b""
        s.framing = None; s.body_len = 0; s._sha = hashlib.sha256(); s.body = bytearray(); s.trailers = []
        s.complete = False; s.errors = []; s.notes = []; s.t_head = time.monotonic(); s.t_done = None; s.x = {}
        s.nchunks = 0; s.chunk_ext = False; s.expect100 = False

    @property
    def sha(s): return s._sha.hexdigest()
    def h(s, name):
        return fvals(s.headers, name if isinstance(name, bytes) else name.encode())
    @property
    def smug(s): return b"smug=1" in s.target


class UpConn:
    n = 0
    def __init__(s, sock):
        UpConn.n += 1; s.id = UpConn.n; s.sock = sock; s.raw = bytearray(); s.nraw = 0; s.reqs = []; s.errors = []
        s.buf = bytearray(); s.t0 = time.monotonic(); s.t_end = None; s.end = None
    def fill(s, timeout=None):
        s.sock.settimeout(timeout)
        d = s.sock.recv(262144)
        if not d:
            s.end = s.end or "eof"; raise EOFError
        s.nraw += len(d)
        if len(s.raw) < KEEP: s.raw += d[:KEEP - len(s.raw)]
        s.buf += d


class Handler:
    """what an upstream script gets"""
    def __init__(s, up, conn, req):
        s.up, s.conn, s.req, s.keep = up, conn, req, True
        s.body_read = False
    def read_body(s):
        if s.body_read: return
        s.body_read = True
        s.up._read_body(s.conn, s.req)
    def send(s, b):
        s.conn.sock.settimeout(20); s.conn.sock.sendall(b)
    def close(s):
        s.keep = False
    def rst(s):
        s.keep = False
        s.conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.conn.sock.close()
    def wait_eof(s, timeout):
        """True/seconds if the proxy closes (or resets) this upstream connection within timeout"""
        t0 = time.monotonic()
        while time.monotonic() - t0 < timeout:
            try: s.conn.fill(max(0.01, timeout - (time.monotonic() - t0)))
            except EOFError: return max(0.001, time.monotonic() - t0)
            except ConnectionError: s.conn.end = "rst"; return max(0.001, time.monotonic() - t0)
            except socket.timeout: return None
        return None
    def reply(s, body=b"", status=b"200 OK", extra=b"", ver=b"HTTP/1.1"):
        n = (s.req.nonce or "-").encode()
        nb = b"" if s.req.method == b"HEAD" else body
        s.send(ver + b" " + status + b"\r\nContent-Type: application/json\r\nX-Echo-Case: " + n + b"\r\n" + extra +
               b"Content-Length: %d\r\n\r\n" % len(body) + nb)


def echo(h):
    h.read_body()
    r = h.req
    h.reply(b'{"len":%d,"sha":"%s","nonce":"%s"}' % (r.body_len, r.sha.encode(), (r.nonce or "-").encode()))


class Upstream:
    def __init__(s, ports, host="127.0.0.1"):
        s.host, s.ports, s.names = host, ports, {}
        s.scripts = {}; s.by = {}; s.conns = []; s.anon = []; s.lock = threading.Lock(); s.cv = threading.Condition(s.lock)
        s.ls = []; s.open()

    def open(s):
        for p in s.ports:
            l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            l.bind((s.host, p)); l.listen(1024); s.ls.append(l)
            threading.Thread(target=s._accept, args=(l,), daemon=True).start()

    def down(s):
        """stop listening and drop every upstream connection"""
        ls, s.ls = s.ls, []
        for l in ls:
            try: l.shutdown(socket.SHUT_RDWR)
            except OSError: pass
            l.close()
        for c in list(s.conns):
            if c.t_end is None:
                try: c.sock.shutdown(socket.SHUT_RDWR)
                except OSError: pass

    def _accept(s, ls):
        while True:
            try: sk, _ = ls.accept()
            except OSError: return
            sk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            c = UpConn(sk)
            with s.lock: s.conns.append(c)
            threading.Thread(target=s._serve, args=(c,), daemon=True).start()

    # -- strict parsing
    def _head(s, c):
        first = True
        while True:
            i = c.buf.find(b"\r\n\r\n")
            if i >= 0: break
            if c.buf and (b"\n\n" in c.buf or b"\n\r\n" in c.buf or b"\r\r" in c.buf):
                r = UpReq(c); r.head = bytes(c.buf); r.errors.append("head: bare CR/LF line terminator reached upstream"); return r
            if len(c.buf) > 8 << 20:
                r = UpReq(c); r.head = bytes(c.buf[:KEEP]); r.errors.append("head > 8 MiB"); return r
            try: c.fill(None)
            except (EOFError, OSError):
                if c.buf:
                    r = UpReq(c); r.head = bytes(c.buf); r.notes.append("incomplete head then close"); r.x["partial_head"] = 1; return r
                return None
        head = bytes(c.buf[:i]); del c.buf[:i + 4]
        r = UpReq(c); r.head = head; e = r.errors
        lines = head.split(b"\r\n")
        for ln in lines:
            if b"\r" in ln or b"\n" in ln: e.append("head: bare CR or LF inside line %r" % ln[:60]); break
        m = re.match(rb"^([^ ]+) ([^ ]+) HTTP/(\d\.\d)$", lines[0])
        if not m: e.append("bad request line %r" % lines[0][:80])
        else:
            r.method, r.target, r.version = m.groups()
            if not TOKEN.match(r.method): e.append("bad method %r" % r.method[:30])
            if re.search(rb"[\x00-\x20\x7f]", r.target): e.append("control/space in target %r" % r.target[:60])
            if re.search(rb"[\x80-\xff]", r.target): r.notes.append("8-bit byte in target")
            if r.version not in (b"1.1", b"1.0"): e.append("version %r" % r.version)
        for ln in lines[1:]:
            nv = check_field_line(ln, e, "head")
            if nv: r.headers.append(nv)
        cl, te, ho = r.h(b"content-length"), r.h(b"transfer-encoding"), r.h(b"host")
        if cl and te: e.append("both Content-Length and Transfer-Encoding")
        if len(cl) > 1: e.append("%d Content-Length lines" % len(cl))
        if cl and not re.match(rb"^[0-9]{1,19}$", cl[0]): e.append("bad Content-Length %r" % cl[0][:40])
        if len(te) > 1: e.append("%d Transfer-Encoding lines" % len(te))
        if te and te[0].lower() != b"chunked": e.append("Transfer-Encoding %r" % te[0][:40])
        if te and r.version == b"1.0": e.append("Transfer-Encoding in HTTP/1.0")
        if r.version == b"1.1" and len(ho) != 1: e.append("%d Host lines" % len(ho))
        if ho and re.search(rb"[\x00-\x20\x7f/\\@?#,]", ho[0]): e.append("bad Host %r" % ho[0][:40])
        for n, _ in r.headers:
            k = re.sub(rb"[^a-z]", b"", n.lower())
            if k in (b"transferencoding", b"contentlength") and n.lower() not in (b"transfer-encoding", b"content-length"):
                r.notes.append("look-alike header forwarded: %r" % n)
        for v in r.h(b"expect"):
            if v.lower() == b"100-continue": r.expect100 = True
        r.framing = "chunked" if te else "cl" if cl else "none"
        r.x["cl"] = int(cl[0]) if cl and not e else 0
        return r

    def _body_add(s, r, d):
        r.body_len += len(d); r._sha.update(d)
        if len(r.body) < KEEP: r.body += d[:KEEP - len(r.body)]

    def _line(s, c, r):
        while True:
            i = c.buf.find(b"\n")
            if i >= 0: break
            if len(c.buf) > 1 << 17: r.errors.append("chunk/trailer line > 128 KiB"); raise ValueError
            c.fill(30)
        ln = bytes(c.buf[:i + 1]); del c.buf[:i + 1]
        if not ln.endswith(b"\r\n"): r.errors.append("chunked: bare LF line %r" % ln[:40]); raise ValueError
        ln = ln[:-2]
        if b"\r" in ln: r.errors.append("chunked: bare CR %r" % ln[:40]); raise ValueError
        return ln

    def _read_body(s, c, r):
        if r.errors: raise ValueError
        if r.expect100 and not c.buf and r.framing != "none":
            c.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n"); r.x["sent100"] = 1
        if r.framing == "cl":
            left = r.x["cl"]
            while left:
                if not c.buf: c.fill(30)
                d = bytes(c.buf[:left]); del c.buf[:len(d)]; left -= len(d); s._body_add(r, d)
        elif r.framing == "chunked":
            while True:
                ln = s._line(c, r); m = CHUNK.match(ln)
                if not m: r.errors.append("bad chunk line %r" % ln[:60]); raise ValueError
                if m.group(2):
                    r.chunk_ext = True
                    if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", m.group(2)): r.errors.append("control byte in chunk-ext %r" % ln[:60]); raise ValueError
                n = int(m.group(1), 16)
                if not n: break
                r.nchunks += 1; left = n
                while left:
                    if not c.buf: c.fill(30)
                    d = bytes(c.buf[:left]); del c.buf[:len(d)]; left -= len(d); s._body_add(r, d)
                while len(c.buf) < 2: c.fill(30)
                if c.buf[:2] != b"\r\n": r.errors.append("no CRLF after chunk data: %r" % bytes(c.buf[:8])); raise ValueError
                del c.buf[:2]
            while True:
                ln = s._line(c, r)
                if not ln: break
                nv = check_field_line(ln, r.errors, "trailer")
                if nv: r.trailers.append(nv)
            if r.errors: raise ValueError
        r.complete = True; r.t_done = time.monotonic()
        with s.cv: s.cv.notify_all()

    def _serve(s, c):
        try:
            while True:
                r = s._head(c)
                if r is None: break
                m = NONCE.search(r.target) or NONCE.search(r.head)
                r.nonce = m.group().decode() if m else None
                c.reqs.append(r)
                with s.cv:
                    (s.by.setdefault(r.nonce, []) if r.nonce else s.anon).append(r)
                    s.cv.notify_all()
                if r.x.get("partial_head"): break
                if r.errors:
                    c.errors += r.errors
                    try: c.sock.sendall(b"HTTP/1.1 400 strict-upstream\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    except OSError: pass
                    break
                h = Handler(s, c, r)
                (s.scripts.get(r.nonce) or echo)(h)
                if not h.keep: break
                h.read_body()
                if any(b"close" in v.lower() for v in r.h(b"connection")) or (r.version == b"1.0" and not any(b"keep-alive" in v.lower() for v in r.h(b"connection"))): break
        except (EOFError, OSError, ValueError):
            if c.reqs and not c.reqs[-1].complete and c.reqs[-1].errors:
                c.errors += c.reqs[-1].errors
                try: c.sock.sendall(b"HTTP/1.1 400 strict-upstream\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                except OSError: pass
        finally:
            c.t_end = time.monotonic()
            try: c.sock.close()
            except OSError: pass
            with s.cv: s.cv.notify_all()

    # -- queries
    def get(s, nonce): return list(s.by.get(nonce, []))
    def wait(s, nonce, pred=None, timeout=3.0, n=1):
        pred = pred or (lambda r: True); end = time.monotonic() + timeout
        with s.cv:
            while True:
                got = [r for r in s.by.get(nonce, []) if pred(r)]
                if len(got) >= n: return got
                left = end - time.monotonic()
                if left <= 0: return got
                s.cv.wait(min(left, 0.2))


# --------------------------------------------------------------------------------------- client
class Resp:
    def __init__(s):
        s.status = 0; s.version = b""; s.reason = b""; s.headers = []; s.body = bytearray(); s.body_len = 0; s._sha = hashlib.sha256()
        s.framing = None; s.complete = False; s.errors = []; s.ended = None; s.interim = []; s.partial = b""; s.trailers = []; s.t_head = 0
        s.head = b""
    def h(s, n): return fvals(s.headers, n.encode() if isinstance(n, str) else n)
    @property
    def sha(s): return s._sha.hexdigest()
    def __repr__(s):
        return "%s%s%s" % (s.status or "-", "" if s.ended == "ok" else "/" + str(s.ended), " !" + ";".join(s.errors) if s.errors else "")


class Conn:
    def __init__(s, host, port, timeout=5, rcvbuf=None):
        s.s = socket.socket()
        if rcvbuf: s.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        s.s.settimeout(timeout); s.s.connect((host, port)); s.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.b = bytearray(); s.eof = False; s.reset = False; s.send_err = None
    def __enter__(s): return s
    def __exit__(s, *a): s.close()
    def send(s, b, timeout=20):
        try: s.s.settimeout(timeout); s.s.sendall(b); return True
        except OSError as e: s.send_err = e; return False
    def shut(s):
        try: s.s.shutdown(socket.SHUT_WR)
        except OSError: pass
    def close(s): s.s.close()
    def rst(s):
        s.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.s.close()
    def fill(s, deadline):
        if s.eof: return False
        left = deadline - time.monotonic()
        if left <= 0: raise socket.timeout
        s.s.settimeout(left)
        try: d = s.s.recv(262144)
        except socket.timeout: raise
        except OSError: s.reset = s.eof = True; return False
        if not d: s.eof = True; return False
        s.b += d; return True
    def wait_close(s, timeout):
        """seconds until the server closed, or None"""
        t0 = time.monotonic()
        try:
            while s.fill(t0 + timeout): pass
            return max(0.001, time.monotonic() - t0)
        except socket.timeout: return None
    def _until(s, sep, dl):
        while True:
            i = s.b.find(sep)
            if i >= 0: return i
            if not s.fill(dl): return -1
    def resp(s, method="GET", timeout=8.0):
        dl = time.monotonic() + timeout; r = Resp(); t0 = time.monotonic()
        try:
            while True:
                i = s._until(b"\r\n\r\n", dl)
                if i < 0:
                    r.ended = "reset" if s.reset else "closed"; r.partial = bytes(s.b)
                    if s.b: r.errors.append("non-HTTP or truncated response head %r" % bytes(s.b[:60]))
                    return r
                head = bytes(s.b[:i]); del s.b[:i + 4]
                lines = head.split(b"\r\n"); m = re.match(rb"^(HTTP/1\.[01]) (\d{3})(?: (.*))?$", lines[0], re.S)
                if not m:
                    r.errors.append("bad status line %r" % lines[0][:60]); r.ended = "bad"; r.partial = head; return r
                hs = []
                for ln in lines[1:]:
                    if b"\r" in ln or b"\n" in ln: r.errors.append("bare CR/LF in response head")
                    nv = check_field_line(ln, r.errors, "resp")
                    if nv: hs.append(nv)
                st = int(m.group(2))
                if 100 <= st < 200 and st != 101:
                    r.interim.append((st, hs)); continue
                break
            r.head = head; r.status, r.version, r.reason, r.headers, r.t_head = st, m.group(1), m.group(3) or b"", hs, time.monotonic() - t0
            cl, te = r.h(b"content-length"), r.h(b"transfer-encoding")
            if cl and te: r.errors.append("response has both CL and TE")
            if len(cl) > 1: r.errors.append("response has %d CL" % len(cl))
            if cl and not cl[0].isdigit(): r.errors.append("response CL %r" % cl[0][:30]); cl = []
            if te and (len(te) > 1 or te[0].lower() != b"chunked"): r.errors.append("response TE %r" % te)
            if st == 101: r.ended = "ok"; r.complete = True; r.framing = "upgrade"; return r
            if method == "HEAD" or st in (204, 304):
                r.framing = "nobody"; r.complete = True; r.ended = "ok"; return r
            def add(d):
                r.body_len += len(d); r._sha.update(d)
                if len(r.body) < 1 << 20: r.body += d
            if te:
                r.framing = "chunked"
                while True:
                    i = s._until(b"\r\n", dl)
                    if i < 0: r.ended = "reset" if s.reset else "truncated"; return r
                    ln = bytes(s.b[:i]); del s.b[:i + 2]; m = CHUNK.match(ln)
                    if not m: r.errors.append("bad response chunk line %r" % ln[:40]); r.ended = "bad"; return r
                    n = int(m.group(1), 16)
                    if n == 0: break
                    left = n + 2; tail = b""
                    while left:
                        if not s.b and not s.fill(dl): r.ended = "reset" if s.reset else "truncated"; return r
                        before = left; d = bytes(s.b[:left]); del s.b[:len(d)]; left -= len(d)
                        k = max(0, min(len(d), before - 2)); add(d[:k]); tail += d[k:]
                    if tail != b"\r\n": r.errors.append("no CRLF after response chunk"); r.ended = "bad"; return r
                while True:
                    i = s._until(b"\r\n", dl)
                    if i < 0: r.ended = "truncated"; return r
                    ln = bytes(s.b[:i]); del s.b[:i + 2]
                    if not ln: break
                    nv = check_field_line(ln, r.errors, "trailer")
                    if nv: r.trailers.append(nv)
            elif cl:
                r.framing = "cl"; left = int(cl[0])
                while left:
                    if not s.b and not s.fill(dl): r.ended = "reset" if s.reset else "truncated"; return r
                    d = bytes(s.b[:left]); del s.b[:len(d)]; left -= len(d); add(d)
            else:
                r.framing = "close"
                while True:
                    if s.b: add(bytes(s.b)); s.b.clear()
                    if not s.fill(dl): break
                if s.reset: r.ended = "reset"; return r
            r.complete = True; r.ended = "ok"; return r
        except socket.timeout:
            r.ended = "timeout"; return r
