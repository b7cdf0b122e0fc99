package measure

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc (USER_HZ, proc(5)); every
// supported Linux has 100 of them a second.
const tick = 10 * time.Millisecond

// stat is what one line of /proc/PID/stat says.
type stat struct {
	pid, parent int
	own         time.Duration // user and system time of all threads, ended ones included
	waited      time.Duration // the same of children that have ended and were waited for
}

// readStat reads /proc/PID/stat, whose fields are numbered from 1 in proc(5).
func readStat(pid int) (stat, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, fmt.Errorf("read processor time: %w", err)
	}
	// The second field is the program's name in brackets and may hold anything.
	// What follows begins with the third.
	end := bytes.LastIndex(raw, []byte(") "))
	fields := strings.Fields(string(raw[end+1:]))
	const parent, utime, stime, cutime, cstime = 4, 14, 15, 16, 17
	if end < 0 || len(fields) <= cstime-3 {
		return stat{}, fmt.Errorf("read processor time: /proc/%d/stat is not understood", pid)
	}
	number := func(field int) int64 {
		n, parseErr := strconv.ParseInt(fields[field-3], 10, 64)
		err = errors.Join(err, parseErr)
		return n
	}
	s := stat{
		pid: pid, parent: int(number(parent)),
		own:    time.Duration(number(utime)+number(stime)) * tick,
		waited: time.Duration(number(cutime)+number(cstime)) * tick,
	}
	if err != nil {
		return stat{}, fmt.Errorf("read processor time: %w", err)
	}
	return s, nil
}

// ProcessCPU answers the processor time that a process has used, in steps of
// 10 ms, without its children.
func ProcessCPU(pid int) (time.Duration, error) {
	s, err := readStat(pid)
	return s.own, err
}

// TreeCPU answers the processor time of a process and everything that it has
// started, as far as it still runs or was waited for.
func TreeCPU(pid int) (time.Duration, error) {
	all, err := processes()
	if err != nil {
		return 0, err
	}
	root, found := all[pid]
	if !found {
		return 0, fmt.Errorf("read processor time: there is no process %d", pid)
	}
	total := root.own + root.waited
	for _, s := range all {
		if s.pid != pid && descends(all, s, pid) {
			total += s.own + s.waited
		}
	}
	return total, nil
}

func descends(all map[int]stat, s stat, from int) bool {
	for hops := 0; s.parent > 1 && hops < 64; hops++ {
		if s.parent == from {
			return true
		}
		s = all[s.parent]
	}
	return false
}

// Parent answers the process that started another one.
func Parent(pid int) (int, error) {
	s, err := readStat(pid)
	return s.parent, err
}

func processes() (map[int]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := make(map[int]stat, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		s, err := readStat(pid)
		switch {
		case err == nil:
			all[pid] = s
		case !errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), "no such process"):
			return nil, err // one that has ended meanwhile is no error
		}
	}
	return all, nil
}

// RSS answers the memory of a process that is resident, in bytes.
func RSS(pid int) (int64, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	fields := strings.Fields(string(raw)) // total resident … in pages
	if len(fields) < 2 {
		return 0, fmt.Errorf("read memory: /proc/%d/statm is not understood", pid)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}
