package chaos_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// world is one run: a database, a model, replicas, clients, and what came of it.
type world struct {
	t    *testing.T
	ctx  context.Context //nolint:containedctx // the life of the run, from newWorld to the end of the test
	seed uint64

	database *database
	name     string        // of the database in the cluster
	pool     *pgxpool.Pool // straight to it
	model    *model
	replicas []*replica
	client   *http.Client
	canary   string   // secret that must not appear anywhere
	args     []string // of every server, beside the usual ones
	visits   string   // file to which processes with failpoints write

	failpoints bool // every process is one with failpoints
	watchers   sync.WaitGroup
	errands    []*errand

	mu         sync.Mutex
	violations []string
	lost       int // of the violations: something that was shown or acknowledged is not there
	duplicated int // something is there twice, or was shown twice
	counts     map[string]int
	kept       strings.Builder // of what clients were told, to look for secrets
	orphans    []orphan
	outages    []outage
	baseline   figures
	drains     []time.Duration
	erased     []int64

	databaseTurn turn
}

// orphan is an execution whose process has gone.
type orphan struct {
	execution, epoch int64
	at               time.Time
}

// outage is a time in which nobody could work: no database, or no server.
type outage struct {
	kind       string
	begin, end time.Time
	commit     time.Duration // from the end to the first commit; 0 = unknown
}

// settings of a world.
type settings struct {
	seed       uint64
	replicas   int
	failpoints bool
	args       []string
}

// newWorld makes a database and starts the replicas. Everything ends with the
// test.
func newWorld(t *testing.T, d *database, cfg settings) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &world{
		t: t, ctx: ctx, seed: cfg.seed, database: d, name: "chaos_" + strings.ToLower(rand.Text()[:10]), model: startModel(t, cfg.seed),
		canary: "sk-canary-" + rand.Text(), args: append(cfg.args, strings.Fields(*serveFlag)...), failpoints: cfg.failpoints, counts: make(map[string]int),
		visits: filepath.Join(t.TempDir(), "visits"),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: 2 * time.Second}},
	}
	t.Cleanup(w.client.CloseIdleConnections)
	if err := d.create(ctx, w.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := d.drop(ctx, w.name); err != nil {
			t.Error(err)
		}
	})
	config, err := pgxpool.ParseConfig(d.url(w.name).String())
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 8
	if w.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	t.Cleanup(func() {
		cancel()
		var ends sync.WaitGroup
		for _, r := range w.replicas {
			ends.Go(r.close)
		}
		ends.Wait()
		w.watchers.Wait()
		if !t.Failed() {
			return
		}
		for _, r := range w.replicas {
			for _, record := range r.records {
				t.Logf("a process of server %d wrote last:\n%s", r.index, record.Tail())
			}
		}
	})
	for i := range cfg.replicas {
		r, err := newReplica(w, i)
		if err != nil {
			t.Fatal(err)
		}
		w.replicas = append(w.replicas, r)
	}
	// One after the other: the first one makes the schema.
	for _, r := range w.replicas {
		if err := r.start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for document := range strings.SplitSeq(chains, "\n---\n") {
		status, text, err := w.send(ctx, w.replicas[0], http.MethodPost, "/api/v1/chains", []byte(document), "")
		if err != nil || status != http.StatusCreated {
			t.Fatalf("a chain was not stored: status %d %s %v", status, text, err)
		}
	}
	if w.baseline, err = w.replicas[0].figures(ctx); err != nil {
		t.Fatal(err)
	}
	return w
}

// violate notes that something does not hold that must.
func (w *world) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text := fmt.Sprintf(format, args...); len(w.violations) < 100 {
		w.violations = append(w.violations, text)
	}
}

// lose is violate for what was shown or acknowledged and is not there.
func (w *world) lose(format string, args ...any) {
	w.violate(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost++
}

// duplicate is violate for what is there twice or was shown twice.
func (w *world) duplicate(format string, args ...any) {
	w.violate(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.duplicated++
}

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

// keep remembers what a client was told, as far as it may hold a secret.
func (w *world) keep(text []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept.Write(text)
	w.kept.WriteByte('\n')
}

// orphaned notes what a process held that is gone, as soon as the database
// answers.
func (w *world) orphaned(pid int, at time.Time) {
	w.watchers.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, leaseTime-2*time.Second) // then others claim
		defer cancel()
		for {
			list, err := w.held(ctx, pid)
			if err == nil {
				w.mu.Lock()
				for i := range list {
					list[i].at = at
				}
				w.orphans = append(w.orphans, list...)
				w.mu.Unlock()
				return
			}
			if !wait(ctx, 50*time.Millisecond) {
				return
			}
		}
	})
}

func (w *world) held(ctx context.Context, pid int) ([]orphan, error) {
	rows, err := w.pool.Query(ctx, `SELECT id, lease_epoch FROM executions WHERE status = 'running' AND lease_owner LIKE '%/' || $1 || '/%'`, strconv.Itoa(pid))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []orphan
	for rows.Next() {
		var o orphan
		if err := rows.Scan(&o.execution, &o.epoch); err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	return list, rows.Err()
}

// out notes an outage that has ended, and waits for the first commit after it.
func (w *world) out(ctx context.Context, kind string, begin time.Time, before int64) {
	o := outage{kind: kind, begin: begin, end: time.Now()}
	for range 2000 {
		if n, err := w.written(ctx); err == nil && n != before {
			o.commit = time.Since(o.end)
			break
		}
		if !wait(ctx, 10*time.Millisecond) {
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outages = append(w.outages, o)
}

// written answers how many events there are.
func (w *world) written(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var n int64
	err := w.pool.QueryRow(ctx, `SELECT coalesce(sum(last_seq), 0)::bigint FROM executions`).Scan(&n)
	return n, err
}

// load is a number of errands, spread over a time.
func (w *world) load(random *mathrand.Rand, n int, over time.Duration) {
	for i := range n {
		e := &errand{
			chain: chainBrief, topic: fmt.Sprintf("topic %d of seed %d", i, w.seed), key: fmt.Sprintf("key-%d-%d", w.seed, i), cancel: -1,
			at: time.Duration(float64(over) * float64(i) / float64(n)),
		}
		switch dice := random.IntN(100); {
		case dice < 25:
			e.chain = chainSolo
		case dice < 31: // cancelled in the middle of a call that would never end
			e.chain, e.cancel = chainEndless, time.Duration(random.IntN(4000))*time.Millisecond
		case dice < 36:
			e.cancel = time.Duration(random.IntN(2500)) * time.Millisecond
		}
		e.readers = append(e.readers, newReader(random))
		if random.IntN(4) == 0 {
			late := newReader(random)
			late.late = time.Duration(random.IntN(5000)) * time.Millisecond
			e.readers = append(e.readers, late)
		}
		w.errands = append(w.errands, e)
	}
}

func newReader(random *mathrand.Rand) reader {
	r := reader{life: time.Duration(2500+random.IntN(5000)) * time.Millisecond, query: random.IntN(4) == 0}
	switch random.IntN(4) {
	case 0:
		r.hangUp = 1
	case 1:
		r.hangUp = 2 + random.IntN(8)
	}
	return r
}

// run lets the clients and the faults loose and waits until both are over.
// settle is how long the executions may take after the last fault.
func (w *world) run(faults []fault, settle time.Duration) {
	begin := time.Now()
	var clients, strikes sync.WaitGroup
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	for i, e := range w.errands {
		seed := w.seed*1_000_003 + uint64(i)
		clients.Go(func() {
			if wait(ctx, e.at) {
				e.run(ctx, w, mathrand.New(mathrand.NewPCG(seed, 2)))
			}
		})
	}
	for _, f := range faults {
		strikes.Go(func() {
			if wait(ctx, f.at) {
				w.strike(ctx, f)
			}
		})
	}
	strikes.Wait()
	stop := time.AfterFunc(settle, func() { cancel(fmt.Errorf("%s after the last fault", settle)) })
	clients.Wait()
	stop.Stop()
	w.t.Logf("seed %d: the run took %.1f s", w.seed, time.Since(begin).Seconds())
}

// figures are what a process needs.
type figures struct{ goroutines, files, memory float64 }

func (r *replica) figures(ctx context.Context) (figures, error) {
	status, text, err := r.direct(ctx, "/metrics")
	if err != nil || status != http.StatusOK {
		return figures{}, fmt.Errorf("read the metrics of server %d: status %d: %w", r.index, status, err)
	}
	r.w.keep([]byte(text))
	f := figures{math.NaN(), math.NaN(), math.NaN()}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch name {
		case "go_goroutines":
			f.goroutines = n
		case "process_open_fds":
			f.files = n
		case "process_resident_memory_bytes":
			f.memory = n
		}
	}
	if math.IsNaN(f.goroutines + f.files + f.memory) {
		return f, errors.New("a figure is missing in /metrics")
	}
	return f, nil
}

// quantile answers a quantile of durations; 0 of none.
func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(len(sorted)-1, int(math.Ceil(q*float64(len(sorted))))-1+boolInt(q == 0))]
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
