-- Takes out stray entries, which are not in the order: somebody added them by hand, and perhaps deleted
-- them again.
-- KEYS: stream, meta.  Returns how many there were.
local last = redis.call('HGET', KEYS[2], 'last')
if not last then return 0 end
local stray = redis.call('XRANGE', KEYS[1], '(0-' .. last, '+')
local highest = '0-0'
-- An error where there is no stream.
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
for at = 1, #info, 2 do
  if info[at] == 'last-generated-id' then highest = info[at + 1] end
end
local time, number = string.match(highest, '(%d+)-(%d+)')
if tonumber(time) > 0 or tonumber(number) > tonumber(last) then
  -- The stream takes no id below the highest one that it ever had, until it is made anew.
  local good = redis.call('XRANGE', KEYS[1], '-', '0-' .. last)
  redis.call('DEL', KEYS[1])
  for _, entry in ipairs(good) do redis.call('XADD', KEYS[1], entry[1], unpack(entry[2])) end
end
return #stray
