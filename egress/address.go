// Package egress fetches what users name, without letting them reach what only this
// server can: its own machine, its network, and the services of a cloud that answer on
// special addresses. What is checked is the address that is connected to, after names
// are resolved, at every hop; so a name that changes its address gains nothing.
package egress

import (
	"net/netip"
)

// special are the addresses that are no place on the public internet, or lead to one
// that is not (IANA's registries of special-purpose addresses for IPv4 and IPv6).
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)

// open are the IPv6 addresses that are given out; within them some are special too.
var open = netip.MustParsePrefix("2000::/3")

var special6 = prefixes(
	"2001::/23",     // protocols, among them Teredo and ORCHID
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4: another address inside
	"2620:4f:8000::/48", "3fff::/20",
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

// Public tells whether an address is a place on the public internet.
func Public(ip netip.Addr) bool {
	if ip.Zone() != "" {
		return false
	}
	if ip.Is4() {
		return !within(ip, special)
	}
	// All that embeds an IPv4 address, ::ffff:0:0/96 and 64:ff9b::/96 among it, is
	// outside of what is given out.
	return open.Contains(ip) && !within(ip, special6)
}

func within(ip netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}
