-- Notes down a channel that a node has, for all nodes to make, unless it was put away.
-- KEYS: channels, what was put away.  ARGV: name, the epoch of the node's file.
if redis.call('SISMEMBER', KEYS[2], ARGV[1] .. ' ' .. ARGV[2]) == 0 then
  redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
end
return 0
