//go:build unix

package httpapi

import (
	"net"
	"syscall"
)

// departure answers what tells whether the client of a connection has left. It
// looks at the socket without reading from it, so that no goroutine has to wait
// in a read for the whole life of a stream.
func departure(conn net.Conn) func() bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return func() bool {
		gone := false
		err := raw.Read(func(fd uintptr) bool {
			var b [1]byte
			n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			gone = n == 0 && err == nil || err == syscall.ECONNRESET
			return true
		})
		return gone || err != nil
	}
}
