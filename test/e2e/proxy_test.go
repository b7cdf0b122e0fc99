package e2e_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chainstream/chainstream/internal/pgtest"
	"github.com/chainstream/chainstream/llm/llmtest"
)

// stepsChain asks a model that writes a word when the test lets it.
const stepsChain = `
name: steps
prompts:
  - {name: Steps, model: openai/steps, content: "Write."}
`

// steps is a reply of n words, each of which waits for the gate.
func steps(gate <-chan struct{}, n int) llmtest.Reply {
	reply := llmtest.Reply{llmtest.Role()}
	for i := range n {
		reply = append(reply, llmtest.Gate(gate), llmtest.Delta(fmt.Sprintf("word-%d ", i)))
	}
	return append(reply, llmtest.Gate(gate), llmtest.Finish("stop"), llmtest.Usage(1, int64(n)), llmtest.Done())
}

// walk reads a live stream in step with the model: the model writes its next
// word when the client has seen the one before, so nothing may wait anywhere
// until there is more of it.
func walk(ctx context.Context, t *testing.T, st *stream, gate chan<- struct{}, n int) []event {
	t.Helper()
	var journal []event
	until := func(what string, done func(event) bool) {
		for {
			e, err := st.next()
			if err != nil {
				t.Fatalf("waiting for %s after %d events: %v", what, len(journal), err)
			}
			journal = append(journal, e)
			if done(e) {
				return
			}
		}
	}
	release := func() {
		select {
		case gate <- struct{}{}:
		case <-ctx.Done():
			t.Fatal("the model does not wait for the test")
		}
	}
	until("the call of the model", func(e event) bool { return e.Type == "llm-request" })
	for i := range n {
		release()
		word := fmt.Sprintf("word-%d ", i)
		until(word, func(e event) bool { return e.Type == "prompt-delta" && decode(t, e).Text == word })
	}
	release()
	until("the end", event.Terminal)
	if _, err := st.next(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last event stands %v, want the end", err)
	}
	return journal
}

// plainProxy is nginx as it comes: the one line that is needed, and the lines
// of the test, if any.
func plainProxy(ctx context.Context, t *testing.T, upstream string, lines ...string) string {
	t.Helper()
	return startNginx(ctx, t, func(address, _ string) string {
		return fmt.Sprintf("server { listen %s; %s location / { proxy_pass http://%s; } }\n", address, strings.Join(lines, " "), upstream)
	})
}

// TestNginxDefaults streams through nginx with nothing but proxy_pass, that is
// with buffers and with HTTP/1.0 towards the server.
func TestNginxDefaults(t *testing.T) {
	t.Parallel()
	const words = 20
	ctx := within(t)
	gate := make(chan struct{})
	fake := llmtest.NewServer(t)
	fake.Script("steps", steps(gate, words), llmtest.Reply{llmtest.Role(), llmtest.Stall()})
	database := pgtest.Database(t)
	s := serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", database, "--heartbeat", "200ms", "--shutdown-timeout", "1s"}})
	via := s.behind(plainProxy(ctx, t, s.addr()))
	via.createChain(ctx, t, stepsChain)

	id := via.begin(ctx, t, "steps", nil)
	st, err := via.open(ctx, id, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	journal := walk(ctx, t, st, gate, words)
	table := rows(ctx, t, connect(ctx, t, database), id)
	sameLog(t, table, journal)

	resumed, err := via.followBy(ctx, id, cursor{}, 1) // hangs up after every event
	if err != nil {
		t.Fatal(err)
	}
	sameLog(t, table, resumed)

	// A stream that has nothing to say begins at once too, and the server
	// notices that its client has left.
	eventually(ctx, t, "no stream is open", func() bool { return metric(t, s, "chainstream_streams_open") == 0 })
	stuck := via.begin(ctx, t, "steps", nil)
	if _, err := fake.Await(ctx, 2); err != nil {
		t.Fatal(err)
	}
	var begun int64
	eventually(ctx, t, "the execution waits for its model", func() bool {
		log := rows(ctx, t, connect(ctx, t, database), stuck)
		begun = int64(len(log))
		return lastType(log) == "llm-request"
	})
	quiet, err := via.open(ctx, stuck, cursor{after: begun})
	if err != nil {
		t.Fatal(err)
	}
	if line, err := quiet.Line(); err != nil || !strings.HasPrefix(line, "retry: ") {
		t.Errorf("the stream begins with %q, %v", line, err)
	}
	if open := metric(t, s, "chainstream_streams_open"); open != 1 {
		t.Errorf("%v streams are open, want 1", open)
	}
	quiet.close()
	eventually(ctx, t, "the server has noticed that the client left", func() bool { return metric(t, s, "chainstream_streams_open") == 0 })
	if n := metric(t, s, `chainstream_streams_ended_total{reason="slow"}`); n != 0 {
		t.Errorf("%v streams were cut for their slowness", n)
	}
}

// TestNginxDefaultsHost tells what the server's rules on Host and Origin make
// of requests that come through nginx as it comes.
func TestNginxDefaultsHost(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	s := serve(ctx, t, settings{args: []string{"--database-url", pgtest.Database(t)}})
	address := plainProxy(ctx, t, s.addr())
	group := startNginx(ctx, t, func(address, _ string) string {
		return fmt.Sprintf("upstream chainstream { server %s; }\nserver { listen %s; location / { proxy_pass http://chainstream; } }\n", s.addr(), address)
	})
	trigger := call{method: http.MethodPost, path: "/api/v1/executions", body: `{"chain": "hello", "inputs": {"name": "Ada"}}`}
	from := func(origin string) call {
		c := trigger
		c.header = map[string]string{"Origin": origin}
		return c
	}
	list := call{method: http.MethodGet, path: "/api/v1/chains", host: "chains.example.com"}
	for _, test := range []struct {
		name, address string
		call          call
		status        int
		text          string
	}{
		{"any name, replaced by that of proxy_pass", address, list, http.StatusOK, `"items"`},
		{"the name of a group", group, list, http.StatusForbidden, "host_not_allowed"},
		{"a program", address, trigger, http.StatusAccepted, `"executionId"`},
		{"the page behind the proxy", address, from("http://" + address), http.StatusForbidden, "origin_not_allowed"},
		{"another page", address, from("https://elsewhere.example"), http.StatusForbidden, "origin_not_allowed"},
	} {
		via := s.behind(test.address)
		a, err := via.do(ctx, test.call)
		if err != nil || a.status != test.status || !strings.Contains(a.body, test.text) {
			t.Errorf("%s: %d %s, %v; want %d with %s", test.name, a.status, a.body, err, test.status, test.text)
		}
	}
}

// TestNginxHeartbeat has a proxy that cuts off what is silent for a second, and
// a stream that has nothing to say for longer. The heartbeat keeps it open;
// without one it is cut.
func TestNginxHeartbeat(t *testing.T) {
	t.Parallel()
	const beats = 20 // of 200 ms
	ctx := within(t)
	fake := llmtest.NewServer(t)
	fake.Script("steps", llmtest.Reply{llmtest.Role(), llmtest.Stall()})
	database := pgtest.Database(t)
	alive := serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", database, "--heartbeat", "200ms", "--shutdown-timeout", "1s"}})
	silent := serve(ctx, t, settings{args: []string{"--database-url", database, "--workers", "0", "--heartbeat", "1h"}})
	alive.createChain(ctx, t, stepsChain)
	id := alive.begin(ctx, t, "steps", nil)

	read := func(s *server) (heartbeats int, err error) {
		st, err := s.behind(plainProxy(ctx, t, s.addr(), "proxy_read_timeout 1s;")).open(ctx, id, cursor{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.close()
		for heartbeats < beats {
			line, err := st.Line()
			if err != nil {
				return heartbeats, err
			}
			if line == ":\n" {
				heartbeats++
			}
		}
		return heartbeats, nil
	}
	if n, err := read(alive); err != nil {
		t.Errorf("the stream ended after %d heartbeats with %v", n, err)
	}
	if n, err := read(silent); err == nil || n > 0 || ctx.Err() != nil {
		t.Errorf("the stream without a heartbeat had %d of them and ended with %v: the proxy's timeout was not tested", n, err)
	}
}

// TestNginxDefaultsCut kills the server behind nginx in the middle of a stream.
// nginx cannot tell that from an end, and the client is not misled by it.
func TestNginxDefaultsCut(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	fake := fragileModel(t)
	database := pgtest.Database(t)
	cfg := settings{env: openAI(fake), args: []string{"--database-url", database}}
	first := serve(ctx, t, cfg)
	cfg.addr = first.addr()
	address := plainProxy(ctx, t, first.addr())
	via := first.behind(address)
	via.createChain(ctx, t, fragileChain)
	id := via.begin(ctx, t, "fragile", nil)
	st, err := via.open(ctx, id, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	seen := readUntilStuck(t, st)
	first.kill(ctx, t)
	for {
		e, err := st.next()
		if err != nil {
			break // an end or a break: it is not said which
		}
		seen = append(seen, e)
	}
	if seen[len(seen)-1].Terminal() {
		t.Fatal("the stream has a terminal event")
	}
	if a, err := via.do(ctx, call{method: http.MethodGet, path: fmt.Sprintf("/events/%d", id)}); err != nil || a.status != http.StatusBadGateway {
		t.Errorf("without a server the proxy answers %d, %v; want 502", a.status, err)
	}

	second := serve(ctx, t, cfg)
	via = second.behind(address)
	rest, err := via.follow(ctx, id, int64(len(seen)))
	if err != nil {
		t.Fatal(err)
	}
	table := rows(ctx, t, connect(ctx, t, database), id)
	sameLog(t, table, append(seen, rest...))
	checkFragile(t, fake, via.execution(ctx, t, id), table)
}

const (
	ownOrigin = "https://chains.example.com" // as the documentation has it
	proxyUser = "ada"
	proxyPass = "a password of the tests"
)

// TestDocumentedProxies runs what docs/operations.md says in front of three
// servers.
func TestDocumentedProxies(t *testing.T) {
	t.Parallel()
	addresses := func(list []*server) []string {
		var pairs []string
		for i, s := range list {
			pairs = append(pairs, fmt.Sprintf("127.0.0.1:%d", 8080+i), s.addr())
		}
		return pairs
	}
	t.Run("nginx", func(t *testing.T) {
		t.Parallel()
		testProxy(t, true, func(ctx context.Context, t *testing.T, list []*server) *server {
			var roots *x509.CertPool
			address := startNginx(ctx, t, func(address, dir string) string {
				roots = certificate(t, dir+"/chainstream.pem", dir+"/chainstream.key")
				writeFile(t, dir+"/chainstream.htpasswd", proxyUser+":{PLAIN}"+proxyPass+"\n")
				text := strings.ReplaceAll(documented(t, "operations.md", "nginx"), "/etc/nginx/", dir+"/")
				return replace(t, text, append(addresses(list), "listen 443 ", "listen "+address+" ")...)
			})
			return list[0].behindTLS(t, address, roots)
		})
	})
	t.Run("caddy", func(t *testing.T) {
		t.Parallel()
		testProxy(t, false, func(ctx context.Context, t *testing.T, list []*server) *server {
			hash, err := exec.CommandContext(ctx, installed(t, "caddy"), "hash-password", "--plaintext", proxyPass).Output()
			if err != nil {
				t.Fatal(err)
			}
			return list[0].behind(startCaddy(ctx, t, func(address string) string {
				return replace(t, documented(t, "operations.md", "caddyfile"),
					append(addresses(list), "chains.example.com {\n", "http://"+address+" {\n", "HASH", strings.TrimSpace(string(hash)))...)
			}))
		})
	})
}

// testProxy tests a documented proxy: who gets in, that a stream is live, and
// that one which was cut off goes on; cutShows says that it can be told from a
// response that has ended.
func testProxy(t *testing.T, cutShows bool, begin func(context.Context, *testing.T, []*server) *server) {
	const words = 5
	ctx := within(t)
	gate := make(chan struct{})
	fake := fragileModel(t)
	fake.Script("steps", steps(gate, words))
	database := pgtest.Database(t)
	list := make([]*server, 3)
	for i := range list {
		list[i] = serve(ctx, t, settings{env: openAI(fake), args: []string{"--database-url", database}})
	}
	via := begin(ctx, t, list)

	if a, err := via.do(ctx, call{method: http.MethodGet, path: "/api/v1/chains"}); err != nil || a.status != http.StatusUnauthorized {
		t.Errorf("without a password: %d, %v; want 401", a.status, err)
	}
	via.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(proxyUser+":"+proxyPass))
	via.createChain(ctx, t, stepsChain)
	via.createChain(ctx, t, fragileChain)
	trigger := call{method: http.MethodPost, path: "/api/v1/executions", body: `{"chain": "steps"}`}
	for name, header := range map[string]map[string]string{
		"another page": {"Origin": "https://elsewhere.example"},
		"another page whose name begins with ours": {"Origin": ownOrigin + ".elsewhere.example"},
		"a page without a name":                    {"Origin": "null"},
		"what the browser says is another page":    {"Origin": ownOrigin, "Sec-Fetch-Site": "cross-site"},
	} {
		c := trigger
		c.header = header
		if a, err := via.do(ctx, c); err != nil || a.status != http.StatusForbidden || !strings.Contains(a.body, "origin_not_allowed") {
			t.Errorf("%s: %d %s, %v; want 403", name, a.status, a.body, err)
		}
	}
	trigger.header = map[string]string{"Origin": ownOrigin, "Sec-Fetch-Site": "same-origin"}
	var ex execution
	if err := via.want(ctx, http.StatusAccepted, trigger, &ex); err != nil {
		t.Fatal(err)
	}

	st, err := via.open(ctx, ex.ID, cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	journal := walk(ctx, t, st, gate, words)
	conn := connect(ctx, t, database)
	sameLog(t, rows(ctx, t, conn, ex.ID), journal)

	id := via.begin(ctx, t, "fragile", nil)
	if st, err = via.open(ctx, id, cursor{}); err != nil {
		t.Fatal(err)
	}
	defer st.close()
	seen := readUntilStuck(t, st)
	cfgs := make([]settings, len(list))
	for i, s := range list {
		cfgs[i] = settings{addr: s.addr(), env: openAI(fake), args: []string{"--database-url", database}}
		s.kill(ctx, t)
	}
	for err = error(nil); err == nil; {
		var e event
		if e, err = st.next(); err == nil {
			seen = append(seen, e)
		}
	}
	if errors.Is(err, io.EOF) && cutShows {
		t.Error("a stream that was cut off ended as if it were complete")
	}
	if seen[len(seen)-1].Terminal() {
		t.Error("a stream that was cut off has a terminal event")
	}
	for _, cfg := range cfgs {
		serve(ctx, t, cfg)
	}
	eventually(ctx, t, "the proxy has found its servers again", func() bool {
		a, err := via.do(ctx, call{method: http.MethodGet, path: "/readyz"})
		return err == nil && a.status == http.StatusOK
	})
	rest, err := via.follow(ctx, id, int64(len(seen)))
	if err != nil {
		t.Fatal(err)
	}
	table := rows(ctx, t, conn, id)
	if diff := cmp.Diff(table[:min(len(seen), len(table))], seen); diff != "" {
		t.Errorf("what the client had seen before is not in the table (-table +client):\n%s", diff)
	}
	sameLog(t, table, append(seen, rest...))
	checkFragile(t, fake, via.execution(ctx, t, id), table)
}
