package chaos_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
)

// proxy is a TCP proxy in which a connection can be made to suffer.
type proxy struct {
	name   string
	listen string // where it listens, always the same
	hears  bool   // watches for connections that LISTEN
	turn   turn   // one fault at a time

	mu      sync.Mutex // one change at a time
	inner   *toxiproxy.Proxy
	hole    *listenHole // nil unless it hears
	leadsTo atomic.Pointer[string]
}

// proxyPatience bounds a change of a proxy. The library waits for its
// connections, and a harness that hangs shows nothing.
const proxyPatience = 20 * time.Second

func registerToxics() { toxics.Register("listen_hole", new(listenHole)) }

// newProxy starts a proxy on a free port.
func newProxy(name, upstream string, hears bool) (*proxy, error) {
	p := &proxy{name: name, listen: "127.0.0.1:0", hears: hears}
	p.leadsTo.Store(&upstream)
	if err := p.open(); err != nil {
		return nil, err
	}
	p.listen = p.inner.Listen
	return p, nil
}

// open starts a proxy of the library's. The caller holds p.mu.
func (p *proxy) open() error {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p.inner = toxiproxy.NewProxy(server, p.name, p.listen, *p.leadsTo.Load())
	if p.hears {
		if err := p.watch(); err != nil {
			return err
		}
	}
	return p.begin(p.inner.Start())
}

// begin insists on a port that a connection of somebody else's has taken for a
// moment.
func (p *proxy) begin(err error) error {
	for try := 0; err != nil && try < 50; try++ {
		<-time.After(100 * time.Millisecond)
		err = p.inner.Start()
	}
	return err
}

// addr is where the proxy listens.
func (p *proxy) addr() string { return p.listen }

// upstream is where the proxy leads to.
func (p *proxy) upstream() string { return *p.leadsTo.Load() }

// lead changes where the proxy leads to; connections to the old place end.
func (p *proxy) lead(upstream string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leadsTo.Store(&upstream)
	return p.begin(p.inner.Update(&toxiproxy.Proxy{Listen: p.listen, Upstream: upstream, Enabled: true}))
}

// listenHole is the toxic that knows which connections listen.
func (p *proxy) listenHole() *listenHole {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hole
}

// toxic adds a fault to every connection, new ones too. The document is the
// library's JSON.
func (p *proxy) toxic(document string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.inner.Toxics.AddToxicJson(strings.NewReader(document))
	return err
}

// heal ends the fault, and every connection with it. A new proxy of the library's
// takes the old one's place: taking a toxic away from a connection that is about
// to end leaves the library in disorder.
func (p *proxy) heal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	healed := make(chan error, 1)
	go func() {
		p.inner.Stop()
		healed <- p.open()
	}()
	select {
	case err := <-healed:
		return err
	case <-time.After(proxyPatience):
		return errors.New("the proxy does not come back")
	}
}

// close ends the proxy and all its connections.
func (p *proxy) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inner.Stop()
}

// watch adds the toxic that knows which connections listen.
func (p *proxy) watch() error {
	wrapper, err := p.inner.Toxics.AddToxicJson(strings.NewReader(`{"type": "listen_hole", "name": "listen_hole", "stream": "downstream", "toxicity": 1, "attributes": {}}`))
	if err != nil {
		return err
	}
	hole, ok := wrapper.Toxic.(*listenHole)
	if !ok {
		return fmt.Errorf("the toxic is a %T", wrapper.Toxic)
	}
	p.hole = hole
	return nil
}

// listenHole swallows what PostgreSQL sends on connections that have said
// LISTEN, notifications and answers alike, while it is active. The connection
// stays open, as behind a firewall that has forgotten it.
type listenHole struct {
	active    atomic.Bool
	listeners atomic.Int64 // connections that have said LISTEN
	swallowed atomic.Int64 // pieces
}

// listenTag is the command tag with which PostgreSQL acknowledges a LISTEN.
var listenTag = []byte("LISTEN\x00")

// NewState implements toxics.StatefulToxic.
func (*listenHole) NewState() any { return new(bool) }

// Pipe implements toxics.Toxic.
func (h *listenHole) Pipe(stub *toxics.ToxicStub) {
	listens, ok := stub.State.(*bool)
	if !ok {
		listens = new(bool)
	}
	for {
		var c *stream.StreamChunk
		select {
		case <-stub.Interrupt:
			return
		case c = <-stub.Input:
		}
		if c == nil {
			stub.Close()
			return
		}
		if !*listens && bytes.Contains(c.Data, listenTag) {
			*listens = true
			h.listeners.Add(1)
		}
		if *listens && h.active.Load() {
			h.swallowed.Add(1)
			continue
		}
		stub.Output <- c
	}
}
