package measure

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Machine describes where the figures come from.
func Machine() string {
	model, memory, kernel := "unknown processor", "", ""
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		model = value(string(raw), "model name", model)
	}
	if raw, err := os.ReadFile("/proc/meminfo"); err == nil {
		kb, _ := strconv.ParseInt(strings.TrimSuffix(value(string(raw), "MemTotal", ""), " kB"), 10, 64)
		memory = fmt.Sprintf(", %d GiB", (kb+1<<19)>>20)
	}
	if raw, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = " " + strings.TrimSpace(string(raw))
	}
	return fmt.Sprintf("%s, %d cores%s, %s%s, %s", model, Cores(), memory, runtime.GOOS, kernel, runtime.Version())
}

// Cores answers how many cores the machine has, also to a process that is bound
// to some of them.
func Cores() int {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return runtime.NumCPU()
	}
	cores := -1 // the line that sums over all of them
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "cpu") {
			cores++
		}
	}
	return max(cores, 1)
}

// value finds "name : value" in the form of /proc/cpuinfo.
func value(text, name, otherwise string) string {
	for line := range strings.Lines(text) {
		if key, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(v)
		}
	}
	return otherwise
}

// Load answers the load average of the last minute; empty where it is unknown.
func Load() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	load, _, _ := strings.Cut(string(raw), " ")
	return load
}

// Foreign watches how much of the machine is used by processes other than this
// one and its children.
type Foreign struct {
	since     time.Time
	busy, own time.Duration
}

// WatchForeign begins to watch.
func WatchForeign() (*Foreign, error) {
	f := &Foreign{since: time.Now()}
	var err error
	f.busy, f.own, err = usage()
	return f, err
}

// Share answers what others used since WatchForeign, as a share of all cores
// from 0 to 1. Time that a hypervisor took away counts. Interrupts do not: the
// kernel works in them for the network traffic of a benchmark.
func (f *Foreign) Share() (float64, error) {
	busy, own, err := usage()
	if err != nil {
		return 0, err
	}
	all := time.Since(f.since) * time.Duration(Cores())
	return max(0, float64((busy-f.busy)-(own-f.own))/float64(all)), nil
}

func usage() (busy, own time.Duration, err error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("read the machine's processor time: %w", err)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal …
	const user, nice, system, steal = 1, 2, 3, 8
	if len(fields) <= steal {
		return 0, 0, errors.New("read the machine's processor time: /proc/stat is not understood")
	}
	for _, i := range []int{user, nice, system, steal} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read the machine's processor time: %w", err)
		}
		busy += time.Duration(n) * tick
	}
	own, err = TreeCPU(os.Getpid())
	return busy, own, err
}
