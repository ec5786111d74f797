-- Epochs and revisions are compared as texts of equal length or below 2^53, never as doubles that round.

-- The next revision: above the one before, and at least the time in microseconds, so that it grows
-- also when this server has lost the last writes of its predecessor.
local function next_revision(counter)
  local now = redis.call('TIME')
  local time = tonumber(now[1]) * 1000000 + tonumber(now[2])
  local before = redis.call('GET', counter) or '0'
  local revision = string.format('%.0f', math.max(tonumber(before) + 1, time))
  redis.call('SET', counter, revision)
  return before, revision
end

-- What a write under `epoch` is refused with, if it is.
local function fence(marks, mark, epoch)
  if mark == '' then
    return nil
  end
  local known = redis.call('HGET', marks, mark) or '00000000000000000000'
  if epoch < known then
    return { 'superseded', known }
  end
  if epoch > known then
    return { 'behind', known }
  end
end

-- What a write is refused with whose key is not as expected.
local function unexpected(current, expect)
  if expect == 'any' or (expect == 'absent' and not current) or expect == current then
    return nil
  end
  return { 'conflict', current or '' }
end

local function told(kind, before, revision, mark, epoch, name, is_whole)
  return table.concat({ kind, before, revision, '=' .. mark, epoch, name, is_whole }, ' ') .. '\n'
end
