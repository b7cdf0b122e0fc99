//go:build !linux

package embedded

import "syscall"

// dieWithParent does nothing here: the next start stops what was left behind.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
