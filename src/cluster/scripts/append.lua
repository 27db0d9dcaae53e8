-- Gives the next numbers to the lines of one batch of one node, once.
-- KEYS: stream, meta, the node's highest batch, the Idempotency-Key's ids.
-- ARGV: epoch, run, node, batch, last line that the node has, first line to keep (0: all), key (or ""),
--       senders, lines, how many lines, a hash, the hash after the lines where they follow that one.
-- Returns: ok hash | known [first, last] | short | settling ms | epoch | run

-- How long a node's highest batch and the ids of a key are kept, in seconds: a day. restore.lua has the same.
local A_DAY = 86400
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'run', 'settled', 'last', 'chain', 't')
if meta[1] ~= ARGV[1] then return {'epoch'} end
if meta[2] ~= ARGV[2] then return {'run'} end
if tonumber(meta[3]) > now then return {'settling', tonumber(meta[3]) - now} end
local last = tonumber(meta[4])
if last < tonumber(ARGV[5]) then return {'short'} end
local is_seen = tonumber(redis.call('GET', KEYS[3]) or 0) >= tonumber(ARGV[4])
local key, lines = ARGV[7], ARGV[9]
if key ~= '' then
  -- First, since a repeat whose answer was lost is a batch that was seen, and yet it never comes back.
  local ids = redis.call('GET', KEYS[4])
  if ids then
    local first, final = string.match(ids, '(%d+) (%d+)')
    -- Later batches may have been seen, too, so the highest one stays.
    if not is_seen then redis.call('SET', KEYS[3], ARGV[4], 'EX', A_DAY) end
    return {'known', tonumber(first), tonumber(final)}
  end
end
if is_seen then return {'known'} end
local chain, first = meta[5], last + 1
if chain == ARGV[11] then
  -- The node has hashed the lines itself, since it knew what they follow.
  chain, last = ARGV[12], last + tonumber(ARGV[10])
else
  -- A plain search takes a quarter less than a pattern, and nothing else is done meanwhile.
  local find, sub, sha1hex = string.find, string.sub, redis.sha1hex
  local from, to = 1, find(lines, '\n', 1, true)
  while to do
    chain = sub(sha1hex(chain .. sub(lines, from, to)), 1, 16)
    last = last + 1
    from = to + 1
    to = find(lines, '\n', from, true)
  end
end
now = math.max(now, tonumber(meta[6] or 0))
local entry = {'d', lines, 'h', chain, 'b', ARGV[3] .. '.' .. ARGV[4], 't', now}
if ARGV[8] ~= '' then entry[9], entry[10] = 'f', ARGV[8] end
if key ~= '' then entry[#entry + 1], entry[#entry + 2] = 'k', key end
-- First what may fail: an entry that somebody added by hand may be in the way.
redis.call('XADD', KEYS[1], '0-' .. last, unpack(entry))
if key ~= '' then redis.call('SET', KEYS[4], first .. ' ' .. last, 'EX', A_DAY) end
redis.call('HSET', KEYS[2], 'last', last, 'chain', chain, 't', now)
redis.call('SET', KEYS[3], ARGV[4], 'EX', A_DAY)
if ARGV[6] ~= '0' then redis.call('XTRIM', KEYS[1], 'MINID', '~', '0-' .. ARGV[6]) end
return {'ok', chain}
