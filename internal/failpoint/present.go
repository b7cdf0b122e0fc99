//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled tells whether the process was built with the tag "failpoint".
const Enabled = true

// action is what is done at one visit of a point.
type action struct {
	kind  string
	sleep time.Duration
	visit int
}

// plan is what the environment asks for, and how often each point was visited.
type plan struct {
	mu      sync.Mutex
	actions map[string]action // by name
	visits  map[Point]int
	file    *os.File
}

var process = sync.OnceValue(read)

// Reach says that the process has come to a point.
func Reach(point Point) {
	p := process()
	p.mu.Lock()
	p.visits[point]++
	n, todo := p.visits[point], p.actions[point.String()]
	if n == 1 {
		p.note("visit", point)
	}
	fires := todo.visit == n
	if fires {
		p.note("fire", point)
	}
	p.mu.Unlock()
	if !fires {
		return
	}
	switch todo.kind {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it comes at any moment
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	default:
		<-time.After(todo.sleep)
	}
}

// note writes a line in one write, so that lines of several processes do not mix.
func (p *plan) note(what string, point Point) {
	if p.file != nil {
		_, _ = p.file.WriteString(fmt.Sprintf("%s %s %d\n", what, point, os.Getpid()))
	}
}

// read reads the environment. What cannot be understood ends the process: a test
// that believes in a fault that never comes would show nothing.
func read() *plan {
	p := &plan{actions: make(map[string]action), visits: make(map[Point]int)}
	if name := os.Getenv(EnvVisits); name != "" {
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			panic(err)
		}
		p.file = file
	}
	for entry := range strings.SplitSeq(os.Getenv(EnvActions), ",") {
		if entry == "" {
			continue
		}
		name, a, err := parse(entry)
		if err != nil {
			panic(err)
		}
		p.actions[name] = a
	}
	return p
}

func parse(entry string) (name string, a action, err error) {
	name, rest, _ := strings.Cut(entry, "=")
	kind, number, _ := strings.Cut(rest, "@")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 {
		return "", action{}, fmt.Errorf("%s: %q is not POINT=ACTION@N", EnvActions, entry)
	}
	a = action{kind: kind, visit: n}
	if text, ok := strings.CutPrefix(kind, "sleep:"); ok {
		if a.sleep, err = time.ParseDuration(text); err != nil {
			return "", action{}, fmt.Errorf("%s: %w", EnvActions, err)
		}
	} else if kind != "kill" && kind != "stop" {
		return "", action{}, fmt.Errorf("%s: %q is no action", EnvActions, kind)
	}
	if !slices.ContainsFunc(between(0, points), func(p Point) bool { return p.String() == name }) {
		return "", action{}, fmt.Errorf("%s: there is no point %q", EnvActions, name)
	}
	return name, a, nil
}
