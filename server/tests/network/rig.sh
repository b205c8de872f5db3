#!/bin/bash
# rig.sh up SCENARIO | down : two offices behind their routers, and a server, in six network namespaces.
#
#   [a] -- [ra] -- [inet] -- [rb] -- [b]        the server [s] hangs on [inet]
#
# SCENARIO says what the routers ra and rb do:
#   open        they route                                       two Devices meet directly
#   cone        NAT that keeps one port per socket               they meet at addresses that STUN tells them
#   symmetric   NAT with a new random port for every peer        only a relay helps
#   noudp       NAT, and no UDP                                  a relay over TCP
#   tcp443      NAT, and nothing but TCP 443                     a relay on port 443
#   tls443      the same, and STUN in the clear is recognised    a relay over TLS
#   proxy       nothing at all, except through a proxy on the router itself
#
# Environment: PREFIX of the namespaces' names; FAMILY=4 takes IPv6 away from a and b.
# Needs root, iproute2, nftables and ethtool. Kernels without sch_netem are fine.

set -euo pipefail

NODES=(a b s ra rb inet)
FAMILY=${FAMILY:-46}

# in NODE COMMAND... : runs a command in a namespace.
in_node() { ip netns exec "$PREFIX-$1" "${@:2}"; }

# link NODE INTERFACE IPV4 IPV6  NODE INTERFACE IPV4 IPV6
link() {
    ip link add "${PREFIX}0" type veth peer name "${PREFIX}1"
    attach "${PREFIX}0" "${@:1:4}"
    attach "${PREFIX}1" "${@:5:4}"
}

attach() { # DEVICE NODE INTERFACE IPV4 IPV6
    ip link set "$1" netns "$PREFIX-$2" name "$3"
    in_node "$2" ip addr add "$4" dev "$3"
    in_node "$2" ip -6 addr add "$5" dev "$3" nodad
    in_node "$2" ip link set "$3" up
    # A veth hands packets on without checksums; NAT and userspace would see them as broken.
    in_node "$2" ethtool -K "$3" tx off >/dev/null
}

up() {
    local scenario=$1 node
    for node in "${NODES[@]}"; do
        ip netns add "$PREFIX-$node"
        in_node "$node" ip link set lo up
        in_node "$node" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
    done

    link a eth0 10.1.0.2/24 fd01::2/64               ra lan 10.1.0.1/24 fd01::1/64
    link b eth0 10.2.0.2/24 fd02::2/64               rb lan 10.2.0.1/24 fd02::1/64
    link ra wan 203.0.113.11/24 fd10::11/64          inet p1 203.0.113.1/24 fd10::1/64
    link rb wan 198.51.100.11/24 fd11::11/64         inet p2 198.51.100.1/24 fd11::1/64
    link s eth0 100.64.0.2/24 fd12::2/64             inet p3 100.64.0.1/24 fd12::1/64
    # The server's second address: a second certificate, or a second thing on port 443.
    in_node s ip addr add 100.64.0.3/24 dev eth0

    for node in ra rb inet; do in_node "$node" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; done
    gateway a 10.1.0.1 fd01::1
    gateway b 10.2.0.1 fd02::1
    gateway s 100.64.0.1 fd12::1
    gateway ra 203.0.113.1 fd10::1
    gateway rb 198.51.100.1 fd11::1
    in_node inet ip -6 route add fd01::/64 via fd10::11
    in_node inet ip -6 route add fd02::/64 via fd11::11

    if [ "$scenario" = open ]; then
        in_node inet ip route add 10.1.0.0/24 via 203.0.113.11
        in_node inet ip route add 10.2.0.0/24 via 198.51.100.11
    else
        firewall "$scenario" ra
        firewall "$scenario" rb
    fi
    if [ "$FAMILY" = 4 ]; then
        for node in a b; do in_node "$node" sysctl -qw net.ipv6.conf.all.disable_ipv6=1; done
    fi
}

gateway() { # NODE IPV4 IPV6
    in_node "$1" ip route add default via "$2"
    in_node "$1" ip -6 route add default via "$3"
}

firewall() { # SCENARIO ROUTER
    local masquerade="masquerade random,fully-random" inspect="" rules
    case $1 in
        cone) masquerade=masquerade rules='iifname "lan" accept' ;;
        symmetric) rules='iifname "lan" accept' ;;
        noudp) rules='iifname "lan" meta l4proto tcp accept' ;;
        tcp443) rules='iifname "lan" tcp dport 443 accept; iifname "lan" reject' ;;
        # The magic cookie of RFC 8489 §5, four bytes into what TCP carries.
        tls443) inspect='@ih,32,32 0x2112a442 drop;' rules='iifname "lan" tcp dport 443 accept; iifname "lan" reject' ;;
        proxy) rules='iifname "lan" reject' ;;
        *)
            echo "there is no scenario called $1" >&2
            return 2
            ;;
    esac
    # Unsolicited UDP has to go before conntrack confirms it: it would take the port of a mapping, and the cone would turn symmetric.
    in_node "$2" nft -f - <<NFT
table inet firewall {
    chain nat { type nat hook postrouting priority 100; oifname "wan" meta nfproto ipv4 $masquerade; }
    chain input { type filter hook input priority 0; iifname "wan" ct state new meta l4proto udp drop; }
    chain forward { type filter hook forward priority 0; policy drop; $inspect ct state established,related accept; $rules; }
}
NFT
}

# Ends what still runs in the namespaces, and removes them.
down() {
    local node
    for node in "${NODES[@]}"; do
        ip netns pids "$PREFIX-$node" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
        ip netns del "$PREFIX-$node" 2>/dev/null || true
    done
}

case ${1-} in
    up) up "$2" ;;
    down) down ;;
    *)
        echo "usage: PREFIX=name rig.sh up SCENARIO | down" >&2
        exit 2
        ;;
esac
