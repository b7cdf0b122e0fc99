package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chainstream/chainstream/internal/failpoint"
	"github.com/chainstream/chainstream/test/internal/program"
)

// fault is one thing that goes wrong.
type fault struct {
	kind   string
	at     time.Duration // after the beginning
	target int           // replica
	length time.Duration
	detail string // toxic or failpoint
	seed   uint64 // of what is drawn while it lasts
}

func (f fault) String() string {
	s := fmt.Sprintf("%6.2f s  %-18s", f.at.Seconds(), f.kind)
	if f.kind != faultKillAll && !strings.HasPrefix(f.kind, "postgresql") && f.kind != faultBurst && f.kind != faultErase {
		s += fmt.Sprintf(" server %d", f.target)
	}
	if f.length > 0 {
		s += fmt.Sprintf(" for %.1f s", f.length.Seconds())
	}
	if f.detail != "" {
		s += " " + f.detail
	}
	return s
}

// The kinds of faults.
const (
	faultKill      = "kill -9"
	faultKillAll   = "kill -9 of all"
	faultPause     = "SIGSTOP"       // past the lease
	faultNap       = "short SIGSTOP" // within the lease
	faultTerm      = "SIGTERM"
	faultFailpoint = "failpoint"
	faultCrash     = "postgresql crash"
	faultFreeze    = "postgresql SIGSTOP"
	faultLostAck   = "lost acknowledgement"
	faultBack      = "database connection"
	faultListen    = "LISTEN black hole"
	faultFront     = "client connection"
	faultBurst     = "100 equal triggers"
	faultErase     = "erasure"
)

// schedule answers the faults of a seed: each kind at least once, in an order
// and with details that follow from the seed, spread over a time.
func schedule(seed uint64, replicas int, over time.Duration, kinds []string) []fault {
	random := rand.New(rand.NewPCG(seed, 3))
	faults := make([]fault, 0, len(kinds))
	order := random.Perm(len(kinds))
	ms := func(from, to int) time.Duration { return time.Duration(from+random.IntN(to-from)) * time.Millisecond }
	for i, k := range order {
		f := fault{kind: kinds[k], target: random.IntN(replicas), seed: random.Uint64()}
		slot := float64(over) / float64(len(kinds))
		f.at = time.Duration(slot * (float64(i) + 0.2 + 0.8*random.Float64()))
		switch f.kind {
		case faultPause:
			f.length = leaseTime + ms(1000, 4000)
		case faultNap:
			f.length = ms(300, 4000)
		case faultFailpoint:
			points := failpoint.Points()
			point := points[random.IntN(len(points))]
			f.detail = fmt.Sprintf("%s=kill@%d", point, 1+random.IntN(20))
			if random.IntN(4) == 0 { // stands still past its lease: the append that it was about to make is fenced
				f.detail = fmt.Sprintf("%s=stop@%d", failpoint.AppendBefore, 1+random.IntN(40))
			}
		case faultCrash:
			f.length = ms(100, 2000)
		case faultFreeze:
			f.length = ms(500, 4000)
		case faultLostAck:
			f.length = ms(200, 1500)
			f.detail = fmt.Sprintf(`{"type": "timeout", "stream": "downstream", "attributes": {"timeout": %d}}`, 50+random.IntN(400))
		case faultBack:
			f.length = ms(300, 3500)
			f.detail = []string{
				`{"type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 0}}`,
				`{"type": "reset_peer", "stream": "upstream", "attributes": {"timeout": 0}}`,
				fmt.Sprintf(`{"type": "latency", "stream": "downstream", "attributes": {"latency": %d, "jitter": %d}}`, 20+random.IntN(300), random.IntN(200)),
				fmt.Sprintf(`{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": %d}}`, 300+random.IntN(20000)),
				fmt.Sprintf(`{"type": "limit_data", "stream": "upstream", "attributes": {"bytes": %d}}`, 300+random.IntN(20000)),
				`{"type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`,
				`{"type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`,
			}[random.IntN(7)]
		case faultListen:
			f.length = ms(2000, 6000)
		case faultFront:
			f.length = ms(200, 2500)
			f.detail = []string{
				`{"type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 20}}`,
				fmt.Sprintf(`{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": %d}}`, 100+random.IntN(5000)),
				fmt.Sprintf(`{"type": "timeout", "stream": "downstream", "attributes": {"timeout": %d}}`, 50+random.IntN(500)),
				fmt.Sprintf(`{"type": "latency", "stream": "downstream", "attributes": {"latency": %d, "jitter": %d}}`, 20+random.IntN(200), random.IntN(100)),
				`{"type": "slicer", "stream": "downstream", "attributes": {"average_size": 40, "size_variation": 20, "delay": 500}}`,
			}[random.IntN(5)]
		}
		faults = append(faults, f)
	}
	return faults
}

// allFaults is the deck of a long run.
func allFaults() []string {
	return []string{
		faultKill, faultKill, faultKill, faultKillAll, faultPause, faultNap, faultTerm, faultTerm, faultFailpoint, faultFailpoint, faultFailpoint,
		faultCrash, faultCrash, faultFreeze, faultLostAck, faultLostAck, faultBack, faultBack, faultListen, faultFront, faultFront, faultBurst, faultErase,
	}
}

// strike makes a fault happen and mends what it broke.
func (w *world) strike(ctx context.Context, f fault) {
	w.t.Logf("seed %d: %s", w.seed, f)
	w.count("fault: " + f.kind)
	r := w.replicas[f.target%len(w.replicas)]
	switch f.kind {
	case faultCrash, faultFreeze:
		w.strikeDatabase(ctx, f)
	case faultKillAll:
		w.strikeAll(ctx)
	case faultLostAck, faultBack:
		w.strikeProxy(ctx, r.back, f)
	case faultFront:
		w.strikeProxy(ctx, r.front, f)
	case faultListen:
		hole := r.back.listenHole()
		hole.active.Store(true)
		wait(ctx, f.length)
		hole.active.Store(false)
		if hole.swallowed.Load() > 0 {
			w.count("LISTEN black holes that swallowed something")
		}
	case faultBurst:
		w.burst(ctx, f)
	case faultErase:
		w.erase(ctx, f)
	default:
		w.strikeProcess(ctx, r, f)
	}
}

func (w *world) strikeProcess(ctx context.Context, r *replica, f fault) {
	p := r.take()
	for p == nil { // it is just coming up, or another fault works on it
		if !wait(ctx, 100*time.Millisecond) {
			return
		}
		p = r.take()
	}
	defer r.give()
	switch f.kind {
	case faultKill:
		r.kill(p)
		r.restart(p)
	case faultPause, faultNap:
		r.pause(ctx, p, f.length)
	case faultTerm, faultFailpoint:
		if f.kind == faultFailpoint {
			r.mu.Lock()
			r.failpoint = f.detail
			r.mu.Unlock()
		}
		begin := time.Now()
		database, connection := w.databaseTurn.mark(), r.back.turn.mark()
		took, err := r.terminate(p)
		w.mu.Lock()
		w.drains = append(w.drains, took)
		w.mu.Unlock()
		// A server whose database is away cannot store its last events and says so.
		disturbed := w.outBetween(begin, time.Now()) || database != w.databaseTurn.mark() || connection != r.back.turn.mark()
		if !disturbed && (err != nil || took > drainTime+5*time.Second) {
			w.violate("server %d took %s to stop at SIGTERM: %v", r.index, took, err)
		}
		r.restart(p)
		if point, _, stops := strings.Cut(f.detail, "=stop@"); stops {
			r.mu.Lock()
			p = r.process
			r.mu.Unlock()
			w.watchers.Go(func() { w.resume(p, point) })
		}
	}
}

// resume lets a process go on that has stopped itself at a point, when its leases
// have run out.
func (w *world) resume(p *program.Process, point string) {
	for wait(w.ctx, 50*time.Millisecond) && !p.Ended() {
		if text, err := os.ReadFile(w.visits); err == nil && strings.Contains(string(text), fmt.Sprintf("fire %s %d\n", point, p.PID())) {
			w.count("stopped at a failpoint")
			w.orphaned(p.PID(), time.Now())
			wait(w.ctx, leaseTime+2500*time.Millisecond)
			_ = p.Signal(syscall.SIGCONT) // it may have been killed meanwhile
			return
		}
	}
}

// strikeDatabase breaks PostgreSQL. One such fault follows the other.
func (w *world) strikeDatabase(ctx context.Context, f fault) {
	w.databaseTurn.take()
	defer w.databaseTurn.give()
	before, err := w.written(ctx)
	if err != nil {
		w.violate("the database does not answer before it is struck: %v", err)
		return
	}
	begin := time.Now()
	if f.kind == faultFreeze {
		thaw, err := w.database.freeze(ctx)
		if err != nil {
			w.violate("PostgreSQL could not be stopped: %v", err)
		}
		wait(ctx, f.length)
		if thaw != nil {
			thaw()
		}
	} else {
		if err := w.database.crash(context.WithoutCancel(ctx)); err != nil {
			w.violate("PostgreSQL could not be stopped: %v", err)
			return
		}
		wait(ctx, f.length)
		if err := w.database.start(context.WithoutCancel(ctx)); err != nil {
			w.violate("PostgreSQL did not start again: %v", err)
			return
		}
		for _, r := range w.replicas {
			if host := w.database.url(w.name).Host; r.back.upstream() != host {
				if err := r.back.lead(host); err != nil {
					w.violate("%v", err)
				}
			}
		}
		// What was seen before a crash is the least that is there after it.
		if n, err := w.written(context.WithoutCancel(ctx)); err == nil && n < before {
			w.lose("%d events before the crash of PostgreSQL, %d after it", before, n)
		} else if err == nil {
			before = n
		}
	}
	w.out(ctx, f.kind, begin, before)
}

// strikeAll kills all servers at once.
func (w *world) strikeAll(ctx context.Context) {
	begin := time.Now()
	var deaths, births sync.WaitGroup
	first := make(chan struct{})
	var once sync.Once
	for _, r := range w.replicas {
		deaths.Add(1)
		births.Go(func() {
			p := r.take()
			for p == nil && wait(ctx, 50*time.Millisecond) {
				p = r.take()
			}
			if p == nil {
				deaths.Done()
				return
			}
			defer r.give()
			r.kill(p)
			deaths.Done()
			deaths.Wait()
			r.restart(p)
			once.Do(func() { close(first) })
		})
	}
	select {
	case <-first:
		w.mu.Lock()
		w.outages = append(w.outages, outage{kind: faultKillAll, begin: begin, end: time.Now()})
		w.mu.Unlock()
	case <-ctx.Done():
	}
	births.Wait()
}

func (w *world) strikeProxy(ctx context.Context, p *proxy, f fault) {
	p.turn.take()
	defer p.turn.give()
	if err := p.toxic(f.detail); err != nil {
		w.violate("the fault %s was not made: %v", f.detail, err)
		return
	}
	wait(ctx, f.length)
	if err := p.heal(); err != nil {
		w.violate("a connection was not mended: %v", err)
	}
}

// burst sends the same trigger 100 times at once, over all replicas.
func (w *world) burst(ctx context.Context, f fault) {
	random := rand.New(rand.NewPCG(f.seed, 4))
	e := &errand{chain: chainSolo, topic: fmt.Sprintf("burst %d", f.seed), key: fmt.Sprintf("burst-%d", f.seed), cancel: -1, readers: []reader{newReader(random)}}
	w.mu.Lock()
	w.errands = append(w.errands, e)
	w.mu.Unlock()
	var requests sync.WaitGroup
	for range 100 {
		seed := random.Uint64()
		requests.Go(func() {
			if err := e.trigger(ctx, w, rand.New(rand.NewPCG(seed, 5))); err != nil {
				w.violate("key %s was not acknowledged: %v", e.key, err)
			}
		})
	}
	requests.Wait()
	if e.id == 0 {
		return
	}
	e.read(ctx, w, 0, random)
}

// erase runs an execution and erases it with its events, as soon as it has
// ended. No other execution may be touched by that.
func (w *world) erase(ctx context.Context, f fault) {
	random := rand.New(rand.NewPCG(f.seed, 6))
	e := &errand{chain: chainSolo, topic: fmt.Sprintf("erased %d", f.seed), key: fmt.Sprintf("erased-%d", f.seed), cancel: -1}
	if err := e.trigger(ctx, w, random); err != nil {
		w.violate("key %s was not acknowledged: %v", e.key, err)
		return
	}
	path := fmt.Sprintf("/api/v1/executions/%d", e.id)
	for sent := false; wait(ctx, 100*time.Millisecond); {
		status, text, err := w.send(ctx, w.pick(random), http.MethodDelete, path, nil, "")
		switch {
		case err != nil:
			sent = true // perhaps it was erased and the answer was lost
		case status == http.StatusNoContent, status == http.StatusNotFound && sent:
			w.mu.Lock()
			w.erased = append(w.erased, e.id)
			w.mu.Unlock()
			return
		case status == http.StatusConflict: // not ended yet
			var p struct{ Code string }
			if err := json.Unmarshal(text, &p); err != nil || p.Code != "execution_running" {
				w.violate("the erasure of execution %d was refused: %s", e.id, text)
			}
		default:
			w.answered(status, text)
			sent = true
		}
	}
}

// turn lets one after the other do something.
type turn struct {
	mu    sync.Mutex
	taken sync.Mutex
	n     int // who has it or waits for it
	times int // it was taken or given
}

func (t *turn) take() {
	t.mu.Lock()
	t.n++
	t.times++
	t.mu.Unlock()
	t.taken.Lock()
}

func (t *turn) give() {
	t.mu.Lock()
	t.n--
	t.times++
	t.mu.Unlock()
	t.taken.Unlock()
}

// mark answers what is the same later if nobody had the turn in between, and not
// if somebody has it.
func (t *turn) mark() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n > 0 {
		t.times++
	}
	return t.times
}

// outBetween tells whether there was an outage in a time.
func (w *world) outBetween(begin, end time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.outages {
		if o.begin.Before(end) && begin.Before(o.end.Add(time.Second)) {
			return true
		}
	}
	return false
}
