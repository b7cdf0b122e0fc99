package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chainstream/chainstream/postgres"
)

// longTransaction is how long a transaction is open before it is worth a word.
const longTransaction = time.Minute

// eventLog looks at the event log and at how well it follows the policy.
func (e *examination) eventLog(ctx context.Context, store *postgres.Store, where string) {
	policy := e.command.policy()
	r, err := store.LogReport(ctx, policy)
	if err != nil {
		e.add("events", verdictMissing, "%s", databaseError(err, where))
		return
	}
	age := "it is empty"
	if r.Oldest != nil {
		age = fmt.Sprintf("the oldest event is of %s, the newest of %s", r.Oldest.Local().Format(time.DateTime), r.Newest.Local().Format(time.DateTime))
	}
	e.add("events", verdictOK, "the log takes %s in %s; %s", size(r.Bytes), count(len(r.Partitions), "partition"), age)
	e.findings[len(e.findings)-1].Data = r
	e.add("executions", verdictOK, "%s", states(r.Executions))
	if r.PartitionsAhead == 0 {
		e.add("partitions", verdictNote, "none is ready for the next executions; a running server makes them every minute, and one is made when it is needed")
	} else {
		e.add("partitions", verdictOK, "%d ready for the next executions", r.PartitionsAhead)
	}
	e.retention(policy, r)
}

// retention tells how far the log is behind the policy, and why.
func (e *examination) retention(policy postgres.RetentionPolicy, r postgres.LogReport) {
	switch {
	case policy.Keep == 0:
		e.add("retention", verdictOK, "off, events are kept for ever; --retention (CHAINSTREAM_RETENTION) sets an age")
	case r.DropDue > 0:
		e.add("retention", verdictNote, "%s older than %s and not yet removed; a running server with this policy removes them every minute", countAre(int64(r.DropDue), "partition"), policy.Keep)
	default:
		e.add("retention", verdictOK, "nothing is older than %s", policy.Keep)
	}
	switch {
	case policy.Fold == 0:
		e.add("folding", verdictOK, "off, text deltas are kept; --fold-deltas-after (CHAINSTREAM_FOLD_DELTAS_AFTER) sets an age")
	case r.FoldDue > 0:
		e.add("folding", verdictNote, "%s to be folded, the oldest since %s; a running server with this policy folds them every minute", countAre(r.FoldDue, "execution"), time.Duration(r.FoldLag*float64(time.Second)).Round(time.Second))
	default:
		e.add("folding", verdictOK, "nothing is to be folded")
	}
	if r.Pending != "" {
		e.add("removal", verdictNote, "%s is half removed; a running server finishes it as soon as no older transaction is open", r.Pending)
	}
	if h := r.Holder; h != nil && (r.Pending != "" || h.Seconds > longTransaction.Seconds()) {
		e.add("transaction", verdictNote, "process %d of %q has a transaction open for %s (%s), which holds the removal of old events and vacuuming back; end that program, or run: SELECT pg_terminate_backend(%d)",
			h.PID, h.Application, time.Duration(h.Seconds*float64(time.Second)).Round(time.Second), h.State, h.PID)
	}
}

func countAre(n int64, what string) string {
	verb := "are"
	if n == 1 {
		verb = "is"
	}
	return count(int(n), what) + " " + verb
}

func states(counts map[string]int64) string {
	if len(counts) == 0 {
		return "none yet"
	}
	var list []string
	for state, n := range counts {
		list = append(list, fmt.Sprintf("%d %s", n, state))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// size writes bytes for people.
func size(n int64) string {
	const step = 1024
	value, units := float64(n), []string{"B", "kB", "MB", "GB", "TB"}
	for value >= step && len(units) > 1 {
		value, units = value/step, units[1:]
	}
	return fmt.Sprintf("%.3g %s", value, units[0])
}
