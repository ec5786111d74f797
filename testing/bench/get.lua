-- The same GET again and again: with the tag that it is asked for by and with the key, if they are in
-- the environment; each time for another person if that is wished; and with a pause between two of
-- one connection.
local tag = os.getenv("BENCH_TAG")
if tag then wrk.headers["If-None-Match"] = tag end
local key = os.getenv("BENCH_KEY")
if key then wrk.headers["Authorization"] = "Bearer " .. key end

if os.getenv("BENCH_PEOPLE") then
  -- Nobody is the same in two runs, so that no answer is known already.
  local run, people = os.time() % 100000, 0
  function request()
    people = people + 1
    return wrk.format(nil, string.format("%s&targetingKey=user-%d-%d", wrk.path, run, people))
  end
end

local wait = tonumber(os.getenv("BENCH_DELAY_MS") or "0")
if wait > 0 then
  function delay() return wait end
end
