package chaos_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// result is what a run has shown.
type result struct {
	seed                            uint64
	executions, events, delivered   int
	due, completed                  int // executions that should complete, and did
	takeovers, undisturbed, cancels []time.Duration
	commits, lives, drains, lags    []time.Duration
	counts, model                   map[string]int
	violations                      []string
	lost, duplicated                int // of the violations
}

// lag notes how long after its time each event came that a waiting reader got.
func (r *result) lag(h *history, journal []entry) {
	for i, e := range journal {
		if e.live && i < len(h.rows) {
			r.lags = append(r.lags, e.at.Sub(h.rows[i].at))
		}
	}
}

// add joins the figures of two runs.
func (r *result) add(o result) {
	r.executions += o.executions
	r.events += o.events
	r.delivered += o.delivered
	r.due += o.due
	r.completed += o.completed
	r.takeovers = append(r.takeovers, o.takeovers...)
	r.undisturbed = append(r.undisturbed, o.undisturbed...)
	r.cancels = append(r.cancels, o.cancels...)
	r.commits = append(r.commits, o.commits...)
	r.lives = append(r.lives, o.lives...)
	r.drains = append(r.drains, o.drains...)
	r.lags = append(r.lags, o.lags...)
	r.violations = append(r.violations, o.violations...)
	r.lost += o.lost
	r.duplicated += o.duplicated
	r.counts, r.model = sum(r.counts, o.counts), sum(r.model, o.model)
}

func sum(a, b map[string]int) map[string]int {
	total := maps.Clone(a)
	if total == nil {
		total = make(map[string]int)
	}
	for name, n := range b {
		total[name] += n
	}
	return total
}

// seconds shows durations of a quantile.
func seconds(list []time.Duration, q float64) string {
	if len(list) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", quantile(list, q).Seconds())
}

// table writes results in Markdown, with their sum.
func table(results []result) string {
	var b strings.Builder
	b.WriteString("| seed | executions | events | delivered | completed | faults | lost | duplicated | violations | takeovers | p50 s | p99 s | max s | undisturbed p99 s |\n")
	b.WriteString("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	var total result
	line := func(name string, r result) {
		faults := 0
		for kind, n := range r.counts {
			if strings.HasPrefix(kind, "fault: ") {
				faults += n
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d/%d | %d | %d | %d | %d | %d | %s | %s | %s | %s |\n", name, r.executions, r.events, r.delivered, r.completed, r.due, faults,
			r.lost, r.duplicated, len(r.violations), len(r.takeovers), seconds(r.takeovers, 0.5), seconds(r.takeovers, 0.99), seconds(r.takeovers, 1), seconds(r.undisturbed, 0.99))
	}
	for _, r := range results {
		line(fmt.Sprint(r.seed), r)
		total.add(r)
	}
	line("all", total)
	b.WriteString("\n| figure | n | p50 s | p99 s | max s |\n|---|--:|--:|--:|--:|\n")
	for _, f := range []struct {
		name string
		list []time.Duration
	}{
		{"takeover, all", total.takeovers},
		{"takeover while a database and a server were there", total.undisturbed},
		{"PostgreSQL back to the first commit", total.commits},
		{"PostgreSQL back to the first event on a stream", total.lives},
		{"cancel acknowledged to the terminal event", total.cancels},
		{"SIGTERM to the exit", total.drains},
		{"event to a waiting reader, any server", total.lags},
	} {
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s |\n", f.name, len(f.list), seconds(f.list, 0.5), seconds(f.list, 0.99), seconds(f.list, 1))
	}
	b.WriteString("\n| what happened | times |\n|---|--:|\n")
	for _, name := range slices.Sorted(maps.Keys(total.counts)) {
		fmt.Fprintf(&b, "| %s | %d |\n", name, total.counts[name])
	}
	for _, name := range slices.Sorted(maps.Keys(total.model)) {
		fmt.Fprintf(&b, "| model: %s | %d |\n", name, total.model[name])
	}
	return b.String()
}

// report fails the test for everything that did not hold.
func (r result) report(t *testing.T) {
	t.Helper()
	for _, v := range r.violations {
		t.Errorf("seed %d: %s", r.seed, v)
	}
}
