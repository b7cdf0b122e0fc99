package main

import "syscall"

// limitProcess bounds the memory, in bytes, and the processor time, in seconds, of
// this process. Beyond the first it fails, beyond the second it is killed. A crash
// leaves no file behind.
func limitProcess(memory, seconds uint64) error {
	for resource, most := range map[int]uint64{syscall.RLIMIT_DATA: memory, syscall.RLIMIT_CPU: seconds, syscall.RLIMIT_CORE: 0} {
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
			return err
		}
	}
	return nil
}
