-- Puts a channel away for all nodes: nothing of it is left, and none of its epochs comes again.
-- KEYS: stream, meta, channels, what was put away.  ARGV: name, the epoch of the node's file.
local name, own = ARGV[1], ARGV[2]
-- What the node has was put away before; a channel of that name is another one.
if redis.call('SISMEMBER', KEYS[4], name .. ' ' .. own) == 1 then return 0 end
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'former')
local first = redis.call('HGET', KEYS[3], name)
local epochs = table.concat({own, meta[1] or '', meta[2] or '', first or ''}, ' ')
for epoch in string.gmatch(epochs, '%w+') do
  redis.call('SADD', KEYS[4], name .. ' ' .. epoch)
end
redis.call('HDEL', KEYS[3], name)
redis.call('DEL', KEYS[1], KEYS[2])
-- The batches of nodes, and the keys of posts, which another channel of that name must not know. KEYS
-- goes through all keys of the engine, and that is no harm: a channel is seldom put away.
for _, key in ipairs(redis.call('KEYS', KEYS[1] .. ':*')) do redis.call('DEL', key) end
return 0
