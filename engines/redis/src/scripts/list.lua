-- KEYS: names, counter.
-- ARGV: what keys of entries begin with, least name, greatest name, most names, about most bytes.
-- Gives the partition's revision, the name behind which the next page begins or '', and six texts for
-- each entry: its name, and what get.lua gives.
local begin, least, greatest, most, room = unpack(ARGV)
local names = redis.call('ZRANGEBYLEX', KEYS[1], least, greatest, 'LIMIT', 0, most)
local page = { redis.call('GET', KEYS[2]) or '0', '' }
if #names == tonumber(most) then
  page[2] = names[#names]
end
local bytes = 0
for _, name in ipairs(names) do
  local key = begin .. name
  local entry = redis.call('HMGET', key, 'r', 'v', 'm', 'e')
  if entry[1] then
    for _, text in ipairs({ name, entry[1], entry[2], entry[3] or '', entry[4] or '' }) do
      page[#page + 1] = text
    end
    page[#page + 1] = tostring(redis.call('PTTL', key))
    bytes = bytes + #entry[2]
    if bytes > tonumber(room) then
      page[2] = name
      break
    end
  end
end
return page
