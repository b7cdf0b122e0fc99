package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/r3labs/sse/v2"

	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/internal/heap"
	"github.com/chainstream/chainstream/llm"
	"github.com/chainstream/chainstream/postgres"
	"github.com/chainstream/chainstream/web"
)

// publisher is a server of one stream.
type publisher interface {
	// publish hands the next event in and does not wait until it is sent.
	publish() error
	subscribers() int
	server() (handler *http.Server, path string)
	close()
}

// serveStreamer is the process of a streamer: it reads its configuration and
// then orders from in, and ends with them.
func serveStreamer(ctx context.Context, in io.Reader, out io.Writer) error {
	orders, answers := bufio.NewScanner(in), json.NewEncoder(out)
	var config StreamerConfig
	if !orders.Scan() {
		return fmt.Errorf("read the configuration: %w", orders.Err())
	}
	if err := json.Unmarshal(orders.Bytes(), &config); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	var p publisher
	if config.Kind == Ours {
		p, err = newOurs(ctx, config)
	} else {
		p = newR3labs(config)
	}
	if err != nil {
		return err
	}
	defer p.close()
	if config.Kind == Ours {
		defer heap.Floor(heap.DefaultFloor, os.Getenv)() // as chainstream serve does
	}
	return program.Profiled(config.Profile, func() error { return obey(listener, p, orders, answers) })
}

// obey serves the stream and follows the orders until they end.
func obey(listener net.Listener, p publisher, orders *bufio.Scanner, answers *json.Encoder) (err error) {
	server, path := p.server()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		err = errors.Join(err, server.Close())
		if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
			err = errors.Join(err, serveErr)
		}
	}()
	if err := answers.Encode(Streamer{Addr: listener.Addr().String(), Path: path}); err != nil {
		return err
	}
	for orders.Scan() {
		switch orders.Text() {
		case "publish":
			err = p.publish()
		case "stats":
			err = answers.Encode(Stats{Goroutines: runtime.NumGoroutine(), Subscribers: p.subscribers()})
		default:
			err = fmt.Errorf("unknown order %q", orders.Text())
		}
		if err != nil {
			return err
		}
	}
	return orders.Err()
}

// ours is the server's own stream: the HTTP layer, the broker and the log as
// cmd/chainstream wires them. Only the executor has nothing to do, because the
// events are written from here.
type ours struct {
	store  *postgres.Store
	broker *events.Broker
	log    *events.Log
	writer *events.Writer
	http   *http.Server
	path   string
	text   string
	last   *events.Pending
}

func newOurs(ctx context.Context, config StreamerConfig) (*ours, error) {
	store, err := postgres.Open(ctx, postgres.Config{URL: config.Database})
	if err != nil {
		return nil, err
	}
	version, err := store.ChainByName(ctx, chainName, 0)
	if err != nil {
		return nil, err
	}
	claimed, err := Execute(ctx, store, version, 1)
	if err != nil {
		return nil, err
	}
	ex := claimed[0]
	o := &ours{store: store, path: "/events/" + strconv.FormatInt(ex.ID, 10)}
	o.broker = events.NewBroker(store, events.BrokerConfig{})
	o.log = events.NewLog(store, o.broker, events.LogConfig{})
	registry := llm.NewRegistry(nil)
	runner := executor.New(store, o.log, registry, executor.Config{Owner: "bench"})
	api, err := httpapi.New(httpapi.Config{Store: store, Runner: runner, Broker: o.broker, Models: registry, Web: web.FS()})
	if err != nil {
		return nil, err
	}
	o.http = api.HTTPServer("")
	o.writer = o.log.Writer(ex.ID, ex.Epoch, 0, nil)
	o.text = strings.Repeat("x", max(0, config.Bytes-commonBytes(ex.ID)))
	return o, nil
}

// commonBytes is the size of a text delta without its text.
func commonBytes(execution int64) int {
	const id, stamp = "00000000-0000-0000-0000-000000000000", "2026-01-01T00:00:00.000Z"
	return len(fmt.Sprintf(`{"seq": 1000, "text": "", "offset": 0, "attempt": 1, "eventId": %q, "parentId": %q, "promptId": 1, "streamId": %q, "timestamp": %q, "executionId": %d}`,
		id, id, events.MainStream, stamp, execution))
}

func (o *ours) publish() error {
	o.last = o.writer.Append(events.Batch{Events: []events.Draft{{Payload: events.PromptDelta{PromptID: 1, Attempt: 1, Text: o.text}}}})
	return nil
}

func (o *ours) subscribers() int { return o.broker.Subscribers() }

func (o *ours) server() (*http.Server, string) { return o.http, o.path }

func (o *ours) close() {
	if o.last != nil {
		<-o.last.Done()
	}
	o.writer.Close()
	o.broker.Close()
	ctx, cancel := context.WithTimeout(context.Background(), streamerStop)
	defer cancel()
	_ = o.log.Close(ctx) // everything is stored
	o.store.Close()
}

// r3labs is the server of github.com/r3labs/sse. It keeps nothing, so replay is
// off: on, it would keep every event of the measurement in memory.
type r3labs struct {
	sse  *sse.Server
	open atomic.Int64
	pad  string
	id   int64
}

const r3labsStream = "bench"

func newR3labs(config StreamerConfig) *r3labs {
	r := &r3labs{}
	r.sse = sse.NewWithCallback(func(string, *sse.Subscriber) { r.open.Add(1) }, func(string, *sse.Subscriber) { r.open.Add(-1) })
	r.sse.AutoReplay = false
	r.sse.CreateStream(r3labsStream)
	const common = len(`{"seq": 1000, "text": ""}`)
	r.pad = strings.Repeat("x", max(0, config.Bytes-common))
	return r
}

func (r *r3labs) publish() error {
	r.id++
	r.sse.Publish(r3labsStream, &sse.Event{
		ID: strconv.AppendInt(nil, r.id, 10), Event: []byte(events.TypePromptDelta),
		Data: fmt.Appendf(nil, `{"seq": %d, "text": %q}`, r.id, r.pad),
	})
	return nil
}

func (r *r3labs) subscribers() int { return int(r.open.Load()) }

func (r *r3labs) server() (*http.Server, string) {
	return &http.Server{Handler: r.sse, ReadHeaderTimeout: 10 * time.Second}, "/?stream=" + r3labsStream
}

func (r *r3labs) close() { r.sse.Close() }
