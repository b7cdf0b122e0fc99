package pgtest

import (
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Proxy stands between a client and the database. It can become a black hole: a
// network that drops everything and tells nobody.
type Proxy struct {
	URL string // of the database through the proxy

	listener net.Listener
	network  string // of the database
	address  string
	wait     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	open  chan struct{} // closed while bytes pass
	done  bool
}

// NewProxy starts a proxy in front of a database. It ends with the test.
func NewProxy(t testing.TB, dsn string) *Proxy {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{conns: make(map[net.Conn]struct{}), open: make(chan struct{})}
	close(p.open)
	p.network, p.address = networkAddress(config)
	var lc net.ListenConfig
	if p.listener, err = lc.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if p.URL, err = withHost(dsn, p.listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	p.wait.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// networkAddress is where a database listens.
func networkAddress(c *pgx.ConnConfig) (network, address string) {
	port := strconv.Itoa(int(c.Port))
	if len(c.Host) > 0 && c.Host[0] == '/' {
		return "unix", c.Host + "/.s.PGSQL." + port
	}
	return "tcp", net.JoinHostPort(c.Host, port)
}

// withHost is a connection string that leads to another address.
func withHost(dsn, address string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", err
	}
	query := u.Query()
	query.Del("host")
	query.Del("port")
	query.Set("sslmode", "disable")
	u.Host, u.RawQuery = address, query.Encode()
	return u.String(), nil
}

// BlackHole lets nothing pass any more, on old connections and new ones, until
// Restore.
func (p *Proxy) BlackHole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// Restore lets bytes pass again: what was held back first.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

func (p *Proxy) close() {
	_ = p.listener.Close() // ends accept
	p.mu.Lock()
	p.done = true
	for c := range p.conns {
		_ = c.Close() // both sides are told by it
	}
	p.mu.Unlock()
	p.Restore()
	p.wait.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		var dialer net.Dialer
		server, err := dialer.Dial(p.network, p.address)
		if err != nil {
			_ = client.Close() // the client learns it so
			continue
		}
		p.mu.Lock()
		if p.done {
			_, _ = client.Close(), server.Close()
		}
		p.conns[client], p.conns[server] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.wait.Go(func() { p.pass(client, server) })
		p.wait.Go(func() { p.pass(server, client) })
	}
}

// pass carries bytes until one of the sides is gone. A black hole hides that too.
func (p *Proxy) pass(from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		<-open
		if n > 0 {
			if _, werr := to.Write(buffer[:n]); werr != nil {
				err = io.ErrClosedPipe
			}
		}
		if err != nil {
			break
		}
	}
	_, _ = from.Close(), to.Close()
	p.mu.Lock()
	delete(p.conns, from)
	delete(p.conns, to)
	p.mu.Unlock()
}
