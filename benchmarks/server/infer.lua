-- wrk posts the file BENCH_BODY, with the content type BENCH_TYPE and, for binary tensors, the length of their JSON head.
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["content-type"] = os.getenv("BENCH_TYPE") or "application/json"
local head = os.getenv("BENCH_HEAD_BYTES")
if head then
  wrk.headers["inference-header-content-length"] = head
end
