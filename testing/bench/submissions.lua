-- Submissions under new ids, or the same one again and again.
wrk.method = "POST"
wrk.body = '{"form":"demo","fields":{"name":"Ada"}}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Store-Id"] = "4711"

local same = os.getenv("BENCH_ID")
if same then
  wrk.headers["Correlation-Id"] = same
else
  -- Two runs, and two threads of one, have no id in common.
  local source = io.open("/dev/urandom", "rb")
  local function hex(bytes)
    return (source:read(bytes):gsub(".", function(byte) return string.format("%02x", byte:byte()) end))
  end
  local run, count = hex(6), 0
  function request()
    count = count + 1
    local id = string.format("%08x-%s-4%s-8%s-%s", count, hex(2), hex(2):sub(2), hex(2):sub(2), run)
    wrk.headers["Correlation-Id"] = id
    return wrk.format()
  end
end
