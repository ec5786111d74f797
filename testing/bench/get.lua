-- The same GET again and again: with the tag that it is asked for by, if there is one in the
-- environment, and with a pause between two of one connection.
local tag = os.getenv("BENCH_TAG")
if tag then wrk.headers["If-None-Match"] = tag end

local wait = tonumber(os.getenv("BENCH_DELAY_MS") or "0")
if wait > 0 then
  function delay() return wait end
end
