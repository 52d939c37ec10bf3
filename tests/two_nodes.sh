#!/bin/sh
# Two nodes of a Ray cluster as namespaces of this machine, each with Debian's /etc/hosts: a node's own name is
# 127.0.1.1. Runs a command on the first one. As root: two_nodes.sh FOLDER RAY COMMAND [ARGUMENT …]
set -eu
folder=$1 ray=$2
shift 2
bridge=cz$$
export RAY_AUTH_MODE=disabled
trap 'exit 1' TERM INT
trap 'for pid in $(cat "$folder"/*.pid); do kill -9 -- "-$pid" 2> /dev/null || true; done
      ip netns del "$bridge-1"; ip netns del "$bridge-2"; ip link del "$bridge.1"; ip link del "$bridge.2"
      ip link del "$bridge"' EXIT
ip link add "$bridge" type bridge
ip link set "$bridge" up
for number in 1 2; do
    ip netns add "$bridge-$number"
    ip link add "$bridge.$number" type veth peer name eth0 netns "$bridge-$number"
    ip link set "$bridge.$number" master "$bridge" up
    ip -n "$bridge-$number" link set lo up
    ip -n "$bridge-$number" addr add "10.87.65.$number/24" dev eth0
    ip -n "$bridge-$number" link set eth0 up
    printf '127.0.0.1 localhost\n127.0.1.1 node%s\n' "$number" > "$folder/hosts$number"
done

# node NUMBER COMMAND…: in the node's network, with its name and its /etc/hosts
node() {
    number=$1
    shift
    setsid ip netns exec "$bridge-$number" unshare -m -u sh -c '
        mount --bind "$0" /etc/hosts && hostname "$1" && echo $$ > "$2" && shift 2 && exec "$@"' \
        "$folder/hosts$number" "node$number" "$folder/$(date +%N).pid" "$@"
}

node 1 "$ray" start --head --node-ip-address=10.87.65.1 --port=6379 --num-cpus=1 --temp-dir="$folder/1" --block \
    --include-dashboard=true > "$folder/1.log" 2>&1 &
for _ in $(seq 60); do grep -q "Ray runtime started" "$folder/1.log" && break; sleep 1; done
node 2 "$ray" start --address=10.87.65.1:6379 --node-ip-address=10.87.65.2 --num-cpus=1 --temp-dir="$folder/2" --block \
    > "$folder/2.log" 2>&1 &
for _ in $(seq 60); do grep -q "Ray runtime started" "$folder/2.log" && break; sleep 1; done
RAY_ADDRESS=10.87.65.1:6379 node 1 "$@" &
wait $!
