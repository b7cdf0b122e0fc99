package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/chainstream/chainstream/test/internal/program"
)

// errand is what one client wants, and the journal of what it was told.
type errand struct {
	chain   string
	topic   string
	key     string
	cancel  time.Duration // how long after its acknowledgement the execution is cancelled; negative = never
	at      time.Duration // when it begins
	readers []reader

	mu        sync.Mutex
	id        int64 // as acknowledged, 0 = not yet
	cancelled bool  // the wish to cancel was acknowledged
	cancelAt  time.Time
}

// reader is a client of the stream and how it behaves.
type reader struct {
	hangUp int           // events after which it changes to another replica; 0 = never
	life   time.Duration // of a connection
	query  bool          // says where to go on in the query
	late   time.Duration // comes later

	journal []entry
}

// entry is an event as a client received it.
type entry struct {
	program.Event
	at      time.Time
	replica int
	live    bool // not the first event of a connection, so nothing that was waiting
}

// acknowledge notes the answer to a trigger. All of them must name the same
// execution.
func (e *errand) acknowledge(w *world, id int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.id != 0 && e.id != id {
		w.duplicate("key %s was acknowledged with execution %d and then with %d", e.key, e.id, id)
	}
	e.id = id
}

// run does the errand: it triggers until there is an answer, then follows.
func (e *errand) run(ctx context.Context, w *world, random *rand.Rand) {
	if err := e.trigger(ctx, w, random); err != nil {
		w.violate("key %s was never acknowledged: %v", e.key, err)
		return
	}
	var parts sync.WaitGroup
	for i := range e.readers {
		seed := random.Uint64()
		parts.Go(func() {
			e.read(ctx, w, i, rand.New(rand.NewPCG(seed, 1)))
		})
	}
	if e.cancel >= 0 {
		seed := random.Uint64()
		parts.Go(func() {
			if wait(ctx, e.cancel) {
				e.stop(ctx, w, rand.New(rand.NewPCG(seed, 1)))
			}
		})
	}
	parts.Wait()
}

// read follows the execution with one of the readers.
func (e *errand) read(ctx context.Context, w *world, number int, random *rand.Rand) {
	var order *orderError
	switch err := e.readers[number].follow(ctx, w, e.id, random); {
	case errors.As(err, &order) && order.got <= order.after:
		w.duplicate("execution %d: %v", e.id, err)
	case errors.As(err, &order):
		w.lose("execution %d: %v", e.id, err)
	case err != nil:
		w.violate("execution %d: %v", e.id, err)
	}
}

// requestPatience bounds one request. A replica that is paused does not answer.
const requestPatience = 4 * time.Second

// trigger sends the request, to one replica after the other, until it is
// acknowledged.
func (e *errand) trigger(ctx context.Context, w *world, random *rand.Rand) error {
	body, err := json.Marshal(map[string]any{"chain": e.chain, "inputs": map[string]string{"topic": e.topic}})
	if err != nil {
		return err
	}
	var last error
	for try := 0; ; try++ {
		status, text, err := w.send(ctx, w.pick(random), http.MethodPost, "/api/v1/executions", body, e.key)
		if err == nil && status == http.StatusAccepted {
			var ack struct{ ExecutionID int64 }
			if err := json.Unmarshal(text, &ack); err != nil {
				return err
			}
			e.acknowledge(w, ack.ExecutionID)
			w.count("acknowledged triggers")
			return nil
		}
		w.count("triggers without an acknowledgement")
		if last = err; err == nil {
			last = fmt.Errorf("status %d: %s", status, text)
			w.answered(status, text)
		}
		if !wait(ctx, time.Duration(50+random.IntN(300))*time.Millisecond) {
			return last
		}
	}
}

// stop cancels the execution and insists.
func (e *errand) stop(ctx context.Context, w *world, random *rand.Rand) {
	for {
		status, text, err := w.send(ctx, w.pick(random), http.MethodPost, fmt.Sprintf("/api/v1/executions/%d/cancel", e.id), nil, "")
		if err == nil && (status == http.StatusAccepted || status == http.StatusConflict) {
			e.mu.Lock()
			e.cancelled, e.cancelAt = status == http.StatusAccepted, time.Now()
			e.mu.Unlock()
			w.count("cancelled")
			return
		}
		if err == nil {
			w.answered(status, text)
		}
		if !wait(ctx, time.Duration(50+random.IntN(200))*time.Millisecond) {
			w.violate("execution %d could not be cancelled: %v", e.id, err)
			return
		}
	}
}

// follow reads the whole log through as many connections as it takes.
func (r *reader) follow(ctx context.Context, w *world, execution int64, random *rand.Rand) error {
	if r.late > 0 && !wait(ctx, r.late) {
		return context.Cause(ctx)
	}
	after := int64(0)
	at := random.IntN(len(w.replicas))
	for {
		err := r.connection(ctx, w, execution, at, &after)
		var refused *program.StatusError
		var broken *program.SyntaxError
		var order *orderError
		switch {
		case errors.Is(err, program.ErrNothingFollows):
			return nil
		case errors.As(err, &refused) && refused.Status < http.StatusInternalServerError:
			return fmt.Errorf("stream after %d at server %d: %w", after, at, err)
		case errors.As(err, &broken):
			return fmt.Errorf("stream after %d at server %d: %w", after, at, err)
		case errors.As(err, &order):
			return err
		}
		w.count("stream connections")
		at = (at + 1 + random.IntN(max(len(w.replicas)-1, 1))) % len(w.replicas)
		pause := time.Duration(random.IntN(20)) * time.Millisecond
		if err != nil && !errors.Is(err, errHungUp) {
			pause += time.Duration(random.IntN(200)) * time.Millisecond
		}
		if !wait(ctx, pause) {
			return fmt.Errorf("the stream did not end; %d events had come: %w", after, err)
		}
	}
}

var errHungUp = errors.New("hung up on purpose")

// orderError says that an event was missing or came twice.
type orderError struct {
	got, after int64
	server     int
}

func (e *orderError) Error() string {
	return fmt.Sprintf("event %d came after %d from server %d", e.got, e.after, e.server)
}

func (r *reader) connection(ctx context.Context, w *world, execution int64, at int, after *int64) error {
	ctx, cancel := context.WithTimeout(ctx, r.life)
	defer cancel()
	st, err := program.Open(ctx, w.replicas[at].addr(), execution, program.Cursor{After: *after, Query: r.query})
	if err != nil {
		return err
	}
	defer st.Close()
	for n := 0; r.hangUp == 0 || n < r.hangUp; n++ {
		e, err := st.Next()
		if err != nil {
			return err
		}
		if e.ID != *after+1 {
			return &orderError{got: e.ID, after: *after, server: at}
		}
		*after = e.ID
		r.journal = append(r.journal, entry{Event: e, at: time.Now(), replica: at, live: n > 0})
	}
	return errHungUp
}

// send sends a request to a replica through its proxy and reads the answer.
func (w *world) send(ctx context.Context, r *replica, method, path string, body []byte, key string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.addr()+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	switch {
	case body == nil:
	case json.Valid(body):
		req.Header.Set("Content-Type", "application/json")
	default:
		req.Header.Set("Content-Type", "application/yaml")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := w.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, text, err
}

// answered looks at a refusal: it must be one that tells the client to come
// again.
func (w *world) answered(status int, text []byte) {
	w.keep(text)
	switch status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusInsufficientStorage:
		w.count(fmt.Sprintf("answers %d", status))
	default:
		w.violate("a request was answered with %d: %s", status, text)
	}
}

// pick answers a replica at random.
func (w *world) pick(random *rand.Rand) *replica { return w.replicas[random.IntN(len(w.replicas))] }
