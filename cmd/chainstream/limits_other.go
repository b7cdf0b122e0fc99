//go:build !linux

package main

import "syscall"

// limitProcess bounds the processor time of this process, in seconds: beyond it, it
// is killed. Its memory cannot be bounded here. A crash leaves no file behind.
func limitProcess(_, seconds uint64) error {
	for resource, most := range map[int]uint64{syscall.RLIMIT_CPU: seconds, syscall.RLIMIT_CORE: 0} {
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
			return err
		}
	}
	return nil
}
