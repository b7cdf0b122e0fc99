package main

import "syscall"

// limitProcess bounds the memory, in bytes, and the processor time, in seconds, of
// this process. Beyond the first it fails, beyond the second it is killed.
func limitProcess(memory, seconds uint64) error {
	for resource, most := range map[int]uint64{syscall.RLIMIT_DATA: memory, syscall.RLIMIT_CPU: seconds} {
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
			return err
		}
	}
	return nil
}
