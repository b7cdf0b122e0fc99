package measure

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// PinSelf binds this process, and everything it will start, to one core. A
// running process has threads everywhere, so it begins again as a process that
// is bound from its first instruction; call it before anything else. GOMAXPROCS
// follows by itself.
func PinSelf(core int) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return fmt.Errorf("read on which cores to run: %w", err)
	}
	if set.Count() == 1 && set.IsSet(core) {
		return nil
	}
	if Cores() < 2 {
		return fmt.Errorf("bind to core %d: the load and the server need a core each", core)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the own program: %w", err)
	}
	runtime.LockOSThread() // the thread that is bound is the one that goes on
	set.Zero()
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("bind to core %d: %w", core, err)
	}
	return fmt.Errorf("start again bound to core %d: %w", core, syscall.Exec(program, os.Args, os.Environ()))
}

// StartPinned starts a command bound to one core.
func StartPinned(cmd *exec.Cmd, core int) error {
	started := make(chan error)
	go func() {
		// A child inherits the cores of the thread that starts it. The thread
		// is not given back, and so ends with this goroutine.
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(core)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			started <- fmt.Errorf("bind to core %d: %w", core, err)
			return
		}
		started <- cmd.Start()
	}()
	return <-started
}
