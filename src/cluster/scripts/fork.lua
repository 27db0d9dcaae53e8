-- Begins a new epoch, unless that has happened: lines that were shown under the old one are not in
-- the order.
-- The old one is remembered, since a file may still have it when the channel is put away.
-- KEYS: stream, meta.  ARGV: old epoch, new epoch.
-- Returns: the epoch from now on.
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'former')
local epoch, former = meta[1], meta[2]
if epoch == ARGV[1] then
  former = former and former .. ' ' .. epoch or epoch
  redis.call('HSET', KEYS[2], 'epoch', ARGV[2], 'former', former)
  return ARGV[2]
end
return epoch or ''
