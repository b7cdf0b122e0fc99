//go:build !linux

package measure

import (
	"errors"
	"os/exec"
)

// errUnsupported says what this system lacks.
var errUnsupported = errors.New("processes can be bound to cores on Linux alone")

// PinSelf binds this process to one core.
func PinSelf(int) error { return errUnsupported }

// StartPinned starts a command bound to one core.
func StartPinned(*exec.Cmd, int) error { return errUnsupported }
