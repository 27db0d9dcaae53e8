-- Begins a new epoch, unless that has happened: lines that were shown under the old one are not in
-- the order.
-- KEYS: stream, meta.  ARGV: old epoch, new epoch.
-- Returns: the epoch from now on.
local epoch = redis.call('HGET', KEYS[2], 'epoch')
if epoch == ARGV[1] then
  redis.call('HSET', KEYS[2], 'epoch', ARGV[2])
  return ARGV[2]
end
return epoch or ''
