//go:build !unix

package httpapi

import "net"

// departure answers nil: that a client has left shows at the next heartbeat.
func departure(net.Conn) func() bool { return nil }
