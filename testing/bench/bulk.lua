-- Bulk evaluation, each time for another person of 10,000. The key comes in the environment.
local people = 0
local countries = { "de", "fr", "us", "jp" }
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = os.getenv("BENCH_KEY") and ("Bearer " .. os.getenv("BENCH_KEY")) or nil

local wait = tonumber(os.getenv("BENCH_DELAY_MS") or "0")
if wait > 0 then
  function delay() return wait end
end

function request()
  people = (people + 7919) % 10000
  local body = string.format(
    '{"context":{"targetingKey":"user-%d","country":"%s","version":"7.%d.1","email":"a%d@example.com","age":%d}}',
    people, countries[people % 4 + 1], people % 9, people, people % 80)
  return wrk.format(nil, nil, nil, body)
end
