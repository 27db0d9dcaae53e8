#!/bin/sh
# How far a cluster goes: which limit ends first as nodes and clients grow, and how long a post takes.
#
#   .config/cluster/how-far.sh                      1 to 100 nodes, a thousand to a million clients
#   .config/cluster/how-far.sh NODES CLIENTS        one case, with each limit by itself
#
# It is a calculation, not a measurement. What was measured stands in BEGIN, each with its unit, and at
# no other place; put figures of your own machines there. The formulas, with N nodes, C clients spread
# evenly over them, all in one channel, and pieces of n lines:
#
#   the engine's time for a piece     T(n) = piece + line * n + N * (read + copy * n)        µs
#   lines/s that the engine numbers   n / T(n), with the largest piece
#   lines/s that its network carries  network / (N * wire)
#   lines/s that a node copies        as measured
#   lines/s of a node's processors    deliveries / (C / N)
#   lines/s of a node's network       network / (C / N * frame)
#   clients                           N * per_node
#   a post that is alone              way + T(1)
#
# The smallest of these rates is what all clients can get. The last lines say how far the formulas are
# from what was measured as a whole.

exec awk -v nodes="${1:-0}" -v clients="${2:-0}" '
BEGIN {
  # The engine, appendfsync always, on one core of a two-core virtual machine, lines of 100 bytes.
  piece = 160                # µs, one script and its sync
  line = 3.4                 # µs, hash and copy of a line, where several nodes post at once
  read = 5                   # µs, one reader that is woken
  copy = 0.09                # µs, a line for one reader
  largest = 2600             # lines of 100 bytes in a piece of 256 KiB
  way = 450                  # µs, two ways and the wake-ups of sequencer, reader and hub
  wire = 130                 # bytes of a line from the engine to a node
  # A node on the same machine.
  deliveries = 23e6          # a second, by two cores
  frame = 150                # bytes of a delivery
  copying = 229000           # lines/s through a node, with engine and load on its two cores: at least
  client_memory = 19         # KB
  per_node = 16000           # clients, by the default vm.max_map_count
  # A network of 10 Gbit/s, in bytes a second.
  network = 1.25e9

  # Measured as a whole: nodes that read, lines/s, and ms of a post that is alone.
  points = split("1 280000 0.5,3 270000 0.6,10 230000 0.8,30 0 0.8,100 79000 1.1", measured, ",")

  if (nodes > 0) { one(nodes, clients); exit }
  table()
  check()
}

function engine_time(n, N) { return piece + line * n + N * (read + copy * n) }
function engine_rate(N) { return largest / engine_time(largest, N) * 1e6 }
function least(rate, what) { if (rate < rate_of_all) { rate_of_all = rate; limit = what } }
function rounded(x,  unit) {
  for (unit = 1; x / unit >= 100; unit *= 10);
  return sprintf("%.0f", int(x / unit + 0.5) * unit)
}

# Sets limit and rate_of_all; false when the clients do not fit.
function calculate(N, C,  each) {
  each = C / N
  rate_of_all = 1e18
  least(engine_rate(N), "engine")
  least(network / (N * wire), "engine network")
  least(copying, "node")
  if (each > 0) {
    least(deliveries / each, "cores")
    least(network / (each * frame), "network")
  }
  return each <= per_node
}

function table(  n, c, sizes, crowds, i, j, row) {
  n = split("1 3 10 30 100", sizes, " ")
  c = split("1000 10000 100000 1000000", crowds, " ")
  print "Messages a second that all clients get, and what ends first:"
  row = sprintf("%10s", "clients")
  for (i = 1; i <= n; i++) row = row sprintf(" %22s", sizes[i] (sizes[i] == 1 ? " node" : " nodes"))
  print row
  for (j = 1; j <= c; j++) {
    row = sprintf("%10d", crowds[j])
    for (i = 1; i <= n; i++) {
      if (calculate(sizes[i], crowds[j])) row = row sprintf(" %22s", rounded(rate_of_all) " " limit)
      else row = row sprintf(" %22s", "- clients")
    }
    print row
  }
}

function one(N, C) {
  printf "%d nodes, %d clients, %d on each (%d MB)\n", N, C, C / N, C / N * client_memory / 1000
  printf "  engine             %12s lines/s\n", rounded(engine_rate(N))
  printf "  engine network     %12s lines/s\n", rounded(network / (N * wire))
  printf "  a node             %12s lines/s\n", rounded(copying)
  if (C > 0) {
    printf "  cores of a node    %12s lines/s\n", rounded(deliveries / (C / N))
    printf "  network of a node  %12s lines/s\n", rounded(network / (C / N * frame))
  }
  printf "  a post alone       %12.1f ms\n", (way + engine_time(1, N)) / 1000
  if (calculate(N, C)) printf "what ends first: %s\n", limit
  else printf "what ends first: clients; they need %d nodes\n", int((C + per_node - 1) / per_node)
}

function check(  i, is) {
  print "\nAgainst what was measured:"
  printf "%10s %22s %22s\n", "nodes", "lines/s (measured)", "ms a post (measured)"
  for (i = 1; i <= points; i++) {
    split(measured[i], is, " ")
    printf "%10d %22s %22s\n", is[1],
      rounded(engine_rate(is[1])) " (" (is[2] > 0 ? is[2] : "-") ")",
      sprintf("%.1f (%s)", (way + engine_time(1, is[1])) / 1000, is[3])
  }
}
'
