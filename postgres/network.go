package postgres

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// isNetworkError tells whether the connection broke under a call.
func isNetworkError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		err.Error() == "conn closed" // pgx has no sentinel for a connection it has already given up
}
