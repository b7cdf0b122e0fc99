package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/postgres/embedded"
)

// check compares what was promised with what is in the tables, and answers the
// figures of the run. The letters are those of docs/reliability.md.
func (w *world) check(ctx context.Context) result {
	r := result{seed: w.seed, counts: w.counts, model: w.model.faults(), drains: w.drains}
	w.queries(ctx)
	logs, err := w.readLogs(ctx)
	if err != nil {
		w.violate("the log cannot be read: %v", err)
		return r
	}
	for id, log := range logs {
		if len(log.rows) > 0 {
			w.checkLog(id, log)
		}
		r.events += len(log.rows)
	}
	r.executions = len(logs)
	w.checkErrands(logs, &r)
	w.checkTakeovers(logs, &r)
	w.checkProcesses(ctx)
	w.checkSecrets(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.outages {
		if o.kind == faultKillAll {
			continue
		}
		if o.commit > 0 {
			r.commits = append(r.commits, o.commit)
		}
		if d := w.firstNew(logs, o); d > 0 {
			r.lives = append(r.lives, d)
		}
	}
	r.violations, r.lost, r.duplicated = slices.Clone(w.violations), w.lost, w.duplicated
	return r
}

// row is an event as the table has it.
type row struct {
	execution int64
	seq       int64
	kind      string
	data      string
	epoch     int64
	at        time.Time
}

// history is an execution as the tables have it.
type history struct {
	status, code, chain, topic string
	rows                       []row
	outputs                    map[string]string // of the prompts, by name
}

// readLogs reads all executions and everything about them.
func (w *world) readLogs(ctx context.Context) (map[int64]*history, error) {
	type execution struct {
		id                         int64
		status, code, chain, topic string
	}
	executions, err := collect(ctx, w, func(r pgx.CollectableRow) (e execution, err error) {
		return e, r.Scan(&e.id, &e.status, &e.code, &e.chain, &e.topic)
	}, `SELECT id, status::text, coalesce(error_code, ''), chain_name, inputs ->> 'topic' FROM executions`)
	if err != nil {
		return nil, err
	}
	logs := make(map[int64]*history, len(executions))
	for _, e := range executions {
		logs[e.id] = &history{status: e.status, code: e.code, chain: e.chain, topic: e.topic, outputs: make(map[string]string)}
	}
	rows, err := collect(ctx, w, func(r pgx.CollectableRow) (e row, err error) {
		return e, r.Scan(&e.execution, &e.seq, &e.kind, &e.data, &e.epoch, &e.at)
	}, `SELECT execution_id, seq, event_type::text, event_data::text, lease_epoch, created_at FROM events ORDER BY execution_id, seq`)
	if err != nil {
		return nil, err
	}
	for _, e := range rows {
		if logs[e.execution] == nil {
			return nil, fmt.Errorf("event %d is of execution %d, which does not exist", e.seq, e.execution)
		}
		logs[e.execution].rows = append(logs[e.execution].rows, e)
	}
	type output struct {
		execution  int64
		name, text string
	}
	outputs, err := collect(ctx, w, func(r pgx.CollectableRow) (o output, err error) {
		return o, r.Scan(&o.execution, &o.name, &o.text)
	}, `SELECT execution_id, name, coalesce(output, '') FROM prompt_results`)
	for _, o := range outputs {
		logs[o.execution].outputs[o.name] = o.text
	}
	return logs, err
}

// collect reads all rows of a query.
func collect[T any](ctx context.Context, w *world, scan pgx.RowToFunc[T], sql string) ([]T, error) {
	rows, err := w.pool.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// queries asks the tables for what must not be there.
func (w *world) queries(ctx context.Context) {
	for _, q := range []struct{ what, sql string }{
		{"I1: executions whose events are not 1..last_seq", `
			SELECT e.id FROM executions e LEFT JOIN events v ON v.execution_id = e.id GROUP BY e.id
			HAVING count(v.seq) <> e.last_seq OR coalesce(max(v.seq), 0) <> e.last_seq OR coalesce(min(v.seq), 1) <> 1`},
		{"I4: executions without exactly one terminal event, at the end", `
			SELECT e.id FROM executions e LEFT JOIN events v ON v.execution_id = e.id AND v.event_type IN ('execution-complete', 'execution-error')
			GROUP BY e.id HAVING count(v.seq) <> 1 OR max(v.seq) <> e.last_seq`},
		{"I4: executions whose state is not what their terminal event says", `
			SELECT e.id FROM executions e JOIN events v ON v.execution_id = e.id AND v.seq = e.last_seq
			WHERE (e.status = 'completed') <> (v.event_type = 'execution-complete')
			   OR (e.status = 'cancelled') <> (v.event_type = 'execution-error' AND v.event_data ->> 'code' = 'cancelled')`},
		{"executions that are left unfinished", `SELECT id FROM executions WHERE status IN ('queued', 'running', 'waiting') OR finished_at IS NULL`},
		{"leases of finished executions", `SELECT id FROM executions WHERE finished_at IS NOT NULL AND lease_owner IS NOT NULL`},
		{"I5: prompts that were completed twice", `
			SELECT execution_id FROM events WHERE event_type = 'prompt-complete' GROUP BY execution_id, event_data ->> 'promptId' HAVING count(*) > 1`},
		{"I5: attempts that were begun twice", `
			SELECT execution_id FROM events WHERE event_type = 'prompt-start' GROUP BY execution_id, event_data ->> 'promptId', event_data ->> 'attempt' HAVING count(*) > 1`},
		{"I5: calls that have two results", `
			SELECT execution_id FROM events WHERE event_type IN ('llm-response', 'llm-error') GROUP BY execution_id, event_data ->> 'requestId' HAVING count(*) > 1`},
		{"I5: results of calls that were never made", `
			SELECT r.execution_id FROM events r WHERE r.event_type IN ('llm-response', 'llm-error') AND NOT EXISTS (
				SELECT FROM events q WHERE q.execution_id = r.execution_id AND q.event_type = 'llm-request' AND q.seq < r.seq AND q.event_data ->> 'requestId' = r.event_data ->> 'requestId')`},
		{"I5: completed executions with a prompt that is not", `
			SELECT e.id FROM executions e WHERE e.status = 'completed' AND e.total_prompts <> (
				SELECT count(*) FROM events v WHERE v.execution_id = e.id AND v.event_type = 'prompt-complete')`},
		{"I7: executions whose epoch falls", `
			SELECT execution_id FROM (SELECT execution_id, lease_epoch, lag(lease_epoch) OVER (PARTITION BY execution_id ORDER BY seq) AS before FROM events) v
			WHERE lease_epoch < before`},
		{"events that are not later than the one before", `
			SELECT execution_id FROM (SELECT execution_id, created_at, lag(created_at) OVER (PARTITION BY execution_id ORDER BY seq) AS before FROM events) v
			WHERE created_at <= before`},
		{"event ids that are there twice", `SELECT min(execution_id) FROM events GROUP BY event_id HAVING count(*) > 1`},
		{"events of executions that do not exist", `SELECT DISTINCT v.execution_id FROM events v WHERE NOT EXISTS (SELECT FROM executions e WHERE e.id = v.execution_id)`},
	} {
		ids, err := collect(ctx, w, pgx.RowTo[int64], q.sql)
		if err != nil {
			w.violate("%s: %v", q.what, err)
		}
		if len(ids) > 0 {
			report := w.violate
			if strings.Contains(q.what, "twice") || strings.Contains(q.what, "two") {
				report = w.duplicate
			} else if strings.HasPrefix(q.what, "I1") {
				report = w.lose
			}
			report("%s: %d, such as %v", q.what, len(ids), ids[:min(len(ids), 10)])
		}
	}
}

// checkLog folds a log as a client does: the text of an attempt is the whole of
// what the model says, or the beginning of it, and nothing of another attempt.
func (w *world) checkLog(id int64, h *history) {
	type attempt struct {
		prompt  int64
		attempt int
	}
	texts := make(map[attempt]string)
	names := make(map[int64]string)
	current := make(map[int64]int)
	want := expected(h.chain, h.topic)
	for _, e := range h.rows {
		var d struct {
			PromptID   int64
			PromptName string
			Attempt    int
			Text       string
			Offset     int
			Output     string
		}
		if err := json.Unmarshal([]byte(e.data), &d); err != nil {
			w.violate("event %d of execution %d: %v", e.seq, id, err)
			return
		}
		key := attempt{d.PromptID, d.Attempt}
		switch e.kind {
		case "prompt-start":
			names[d.PromptID] = d.PromptName
			if d.Attempt <= current[d.PromptID] {
				w.violate("event %d of execution %d starts attempt %d after attempt %d", e.seq, id, d.Attempt, current[d.PromptID])
			}
			current[d.PromptID] = d.Attempt
		case "prompt-delta":
			if d.Attempt != current[d.PromptID] || d.Offset != len(texts[key]) { // the model writes ASCII
				w.violate("event %d of execution %d is text of attempt %d at %d, want attempt %d at %d", e.seq, id, d.Attempt, d.Offset, current[d.PromptID], len(texts[key]))
			}
			texts[key] += d.Text
		case "prompt-complete":
			if d.Output != texts[key] || d.Output != want[names[d.PromptID]] {
				w.violate("event %d of execution %d: the output is %q, its deltas are %q, the model said %q", e.seq, id, d.Output, texts[key], want[names[d.PromptID]])
			}
			if out := h.outputs[names[d.PromptID]]; out != d.Output {
				w.violate("execution %d has the output %q, its log %q", id, out, d.Output)
			}
		}
	}
	for key, text := range texts {
		if !strings.HasPrefix(want[names[key.prompt]], text) {
			w.violate("attempt %d of %s of execution %d wrote %q, the model said %q", key.attempt, names[key.prompt], id, text, want[names[key.prompt]])
		}
	}
}

// checkErrands compares what clients were told with what is stored.
func (w *world) checkErrands(logs map[int64]*history, r *result) {
	seen := make(map[int64]string)
	due, completed := 0, 0
	failures := make(map[string]int)
	for _, e := range w.errands {
		if e.id == 0 {
			continue // said already
		}
		if other, twice := seen[e.id]; twice {
			w.duplicate("execution %d was acknowledged for %s and for %s", e.id, other, e.key)
		}
		seen[e.id] = e.key
		h := logs[e.id]
		if h == nil {
			w.lose("I2: execution %d was acknowledged and does not exist", e.id)
			continue
		}
		for i := range e.readers {
			w.checkJournal(e.id, i, h, e.readers[i].journal)
			r.delivered += len(e.readers[i].journal)
			r.lag(h, e.readers[i].journal)
		}
		last := row{}
		if len(h.rows) > 0 {
			last = h.rows[len(h.rows)-1]
		}
		switch {
		case e.cancelled:
			if h.status != "cancelled" && h.status != "completed" {
				w.violate("execution %d was cancelled and is %s %s", e.id, h.status, h.code)
			}
			r.cancels = append(r.cancels, max(last.at.Sub(e.cancelAt), 0))
		case e.chain == chainEndless:
			w.violate("execution %d ended without being cancelled: %s %s", e.id, h.status, h.code)
		default:
			due++
			if h.status == "completed" {
				completed++
			} else {
				failures[h.status+" "+h.code]++
			}
		}
	}
	r.due, r.completed = due, completed
	if due > 0 && completed*100 < due*99 {
		w.violate("I12: %d of %d executions completed; the others: %v", completed, due, failures)
	}
	if len(failures) > 0 {
		w.t.Logf("seed %d: not completed: %v", w.seed, failures)
	}
	// Every key made one execution, and nothing else made any.
	var keys, executions int
	if err := w.pool.QueryRow(w.ctx, `SELECT (SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM executions)`).Scan(&keys, &executions); err != nil {
		w.violate("count the keys: %v", err)
	} else if keys != executions || executions != len(seen) {
		w.duplicate("%d executions of %d keys; clients were told of %d", executions, keys, len(seen))
	}
	for _, id := range w.erased {
		if logs[id] != nil {
			w.violate("execution %d was erased and is there", id)
		}
	}
}

// checkJournal compares what a reader saw with the table.
func (w *world) checkJournal(id int64, number int, h *history, journal []entry) {
	for i, e := range journal {
		if i >= len(h.rows) {
			w.lose("I3: reader %d of execution %d saw event %d %s, which is not in the table", number, id, e.ID, e.Type)
			return
		}
		if t := h.rows[i]; e.ID != t.seq || e.Type != t.kind || e.Data != t.data {
			w.lose("I3: reader %d of execution %d saw event %d %s %s; the table has %d %s %s", number, id, e.ID, e.Type, e.Data, t.seq, t.kind, t.data)
			return
		}
	}
	if len(journal) != len(h.rows) {
		w.lose("I3: reader %d of execution %d saw %d of %d events", number, id, len(journal), len(h.rows))
	}
}

// checkTakeovers measures how long executions were without a process.
func (w *world) checkTakeovers(logs map[int64]*history, r *result) {
	w.mu.Lock()
	orphans := slices.Clone(w.orphans)
	w.mu.Unlock()
	for _, o := range orphans {
		h := logs[o.execution]
		if h == nil {
			continue
		}
		for _, e := range h.rows {
			if e.epoch <= o.epoch {
				continue
			}
			took := e.at.Sub(o.at)
			r.takeovers = append(r.takeovers, took)
			// By the very next owner, while there were a database and a server.
			if e.epoch == o.epoch+1 && !w.outBetween(o.at, e.at) {
				r.undisturbed = append(r.undisturbed, took)
			}
			break
		}
	}
}

// firstNew answers how long after an outage the first event came on a stream
// that was written after the outage had begun.
func (w *world) firstNew(logs map[int64]*history, o outage) time.Duration {
	var first time.Duration
	for _, e := range w.errands {
		h := logs[e.id]
		if h == nil {
			continue
		}
		for i := range e.readers {
			for k, j := range e.readers[i].journal {
				if d := j.at.Sub(o.end); k < len(h.rows) && d > 0 && h.rows[k].at.After(o.begin) && (first == 0 || d < first) {
					first = d
				}
			}
		}
	}
	return first
}

// checkProcesses waits until the servers need no more than at the beginning.
func (w *world) checkProcesses(ctx context.Context) {
	// Connections that are kept for the next call are no leak; those to the
	// model and from clients are closed here, those of the pools to PostgreSQL
	// stay for half an hour: a file each, and at times a goroutine. Go gives
	// memory back late.
	w.model.hangUp()
	w.client.CloseIdleConnections()
	const pools = 24
	most := figures{goroutines: w.baseline.goroutines + pools + 8, files: w.baseline.files + pools + 4, memory: w.baseline.memory + 128<<20}
	for _, r := range w.replicas {
		var f figures
		for try := 0; ; try++ {
			var err error
			if f, err = r.figures(ctx); err == nil && f.goroutines <= most.goroutines && f.files <= most.files && f.memory <= most.memory {
				break
			}
			if try == 150 || !wait(ctx, 200*time.Millisecond) {
				w.violate("I9: server %d is left with %+v, an idle one had %+v (%v)", r.index, f, w.baseline, err)
				break
			}
		}
	}
}

// checkSecrets looks for the key of the model and the password of the database
// in everything that leaves a server.
func (w *world) checkSecrets(ctx context.Context) {
	password, _ := w.database.url(w.name).User.Password()
	look := func(where, text string) {
		for what, secret := range map[string]string{"the key of the model": w.canary, "the password of the database": password} {
			if strings.Contains(text, secret) {
				w.violate("I10: %s appears in %s", what, where)
			}
		}
		if strings.Contains(text, "\npanic: ") || strings.Contains(text, "\ngoroutine 1 [") || strings.Contains(text, `"msg":"panic`) {
			w.violate("a panic in %s", where)
		}
	}
	for _, r := range w.replicas {
		for _, record := range r.records {
			look(fmt.Sprintf("the log of server %d", r.index), record.String())
		}
	}
	look("an answer", w.kept.String())
	for _, e := range w.errands {
		for i := range e.readers {
			for _, j := range e.readers[i].journal {
				look("a stream", j.Data)
			}
		}
	}
	dump, err := w.dump(ctx)
	if err != nil {
		w.violate("I10: the database cannot be dumped: %v", err)
	}
	look("the dump of the database", dump)
}

func (w *world) dump(ctx context.Context) (string, error) {
	installed, err := embedded.Find()
	if err != nil {
		return "", err
	}
	u := w.database.url(w.name)
	password, _ := u.User.Password()
	command := exec.CommandContext(ctx, filepath.Join(installed.BinDir, "pg_dump"), "-h", u.Hostname(), "-p", u.Port(), "-U", u.User.Username(), w.name)
	command.Env = []string{"PGPASSWORD=" + password}
	var said strings.Builder
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, said.String())
	}
	return string(out), nil
}
