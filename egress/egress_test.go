package egress_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/chainstream/chainstream/egress"
)

func TestPublic(t *testing.T) {
	t.Parallel()
	for _, ip := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.1.2.3", "169.254.169.254", "169.254.0.1",
		"172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1",
		"192.168.255.255", "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
		"255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", "64:ff9b::7f00:1",
		"64:ff9b::808:808", "64:ff9b:1::1", "100::1", "100:0:0:1::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1",
		"2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "2620:4f:8000::1", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254",
		"fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "2606:4700::1%eth0",
	} {
		if egress.Public(netip.MustParseAddr(ip)) {
			t.Errorf("%s is public", ip)
		}
	}
	for _, ip := range []string{"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1",
		"192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "2001:200::1", "2606:4700::1111", "2a00:1450::1"} {
		if !egress.Public(netip.MustParseAddr(ip)) {
			t.Errorf("%s is not public", ip)
		}
	}
}

// fetch answers the message of the error, "" when there is none.
func fetch(t *testing.T, f *egress.Fetcher, address string) (egress.Fetched, *egress.Error) {
	t.Helper()
	got, err := f.Fetch(t.Context(), address)
	if err == nil {
		return got, nil
	}
	e, ok := errors.AsType[*egress.Error](err)
	if !ok {
		t.Fatalf("%s: %v is no egress.Error", address, err)
	}
	return got, e
}

// Whatever way the own machine is written, it is not reached.
func TestRefused(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(server.URL, "http://"))
	f := egress.New(egress.Config{})
	for _, address := range []string{
		server.URL, "http://localhost:" + port, "http://127.1:" + port, "http://2130706433:" + port, "http://0x7f000001:" + port, "http://0177.0.0.1:" + port,
		"http://0:" + port, "http://0.0.0.0:" + port, "http://[::1]:" + port, "http://[::ffff:127.0.0.1]:" + port, "http://[::ffff:7f00:1]:" + port,
		"http://[::]:" + port, "http://127.0.0.1.:" + port, "http://LOCALHOST:" + port, "http://user:pass@example.com/", "ftp://example.com/", "file:///etc/passwd",
		"gopher://example.com", "javascript:alert(1)", "data:text/plain,x", "http://", "http:///x", "//example.com", "example.com", "http:example.com", "", "http://exa mple.com", "http://[::1",
	} {
		if _, err := fetch(t, f, address); err == nil {
			t.Errorf("%s was fetched", address)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
}

func TestFetch(t *testing.T) {
	t.Parallel()
	var inner *httptest.Server
	mux := http.NewServeMux()
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<p>Text"))
	})
	mux.HandleFunc("/latin", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", `Text/Plain; charset="ISO-8859-1"; x=y`)
		_, _ = w.Write([]byte("caf\xe9"))
	})
	for _, code := range []int{404, 429, 503} {
		mux.HandleFunc("/"+http.StatusText(code)[:3], func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1001)) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 100)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "gzip") })
	mux.HandleFunc("/hop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/page", http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/inside", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inner.URL, http.StatusFound) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/stall", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	// Another address of the same machine, which is not allowed.
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	inner = &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }), ReadHeaderTimeout: time.Second}}
	inner.Start()
	t.Cleanup(inner.Close)
	f := egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Most: 1000, Timeout: 2 * time.Second})
	for _, path := range []string{"/page", "/hop", "/page#part"} {
		if got, err := fetch(t, f, server.URL+path); err != nil || string(got.Data) != "<p>Text" || got.MediaType != "text/html" {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	if got, err := fetch(t, f, server.URL+"/latin"); err != nil || string(got.Data) != "caf\xe9" || got.MediaType != "text/plain; charset=ISO-8859-1" {
		t.Errorf("/latin: %+v, %v", got, err)
	}
	for path, want := range map[string]struct {
		text    string
		passing bool
	}{
		"/Not": {"status 404", false}, "/Too": {"status 429", true}, "/Ser": {"status 503", true}, "/large": {"more than 1000 bytes", false},
		"/endless": {"more than 1000 bytes", false}, "/gzip": {"encoding", false}, "/loop": {"more than 5 times", false}, "/inside": {"--fetch-allow", false},
		"/file": {"Only http", false}, "/stall": {"does not answer", true},
	} {
		_, err := fetch(t, f, server.URL+path)
		if err == nil || !strings.Contains(err.Message, want.text) || err.Passing != want.passing {
			t.Errorf("%s: %+v, want %q", path, err, want.text)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the inner server was asked %d times", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Fetch(ctx, server.URL+"/page"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A name that changes its address between two looks is refused when it leads inside.
func TestRebinding(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(server.URL, "http://"))
	names, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = names.Close() })
	var looks atomic.Int64
	go func() {
		packet := make([]byte, 512)
		for {
			n, from, err := names.ReadFrom(packet)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(packet[:n]) != nil {
				continue
			}
			m.Response = true
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				// A documentation address first, which nobody has, and then this machine.
				ip := [4]byte{127, 0, 0, 1}
				if looks.Add(1)%2 == 1 {
					ip = [4]byte{203, 0, 113, 7}
				}
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}, Body: &dnsmessage.AResource{A: ip},
				}}
			}
			m.Additionals = nil
			if out, err := m.Pack(); err == nil {
				_, _ = names.WriteTo(out, from)
			}
		}
	}()
	f := egress.New(egress.Config{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", names.LocalAddr().String())
	}}})
	for range 10 {
		if _, err := fetch(t, f, "http://rebound.example:"+port); err == nil {
			t.Fatal("it was fetched")
		}
	}
	if looks.Load() < 10 || asked.Load() != 0 {
		t.Errorf("%d looks, the server was asked %d times", looks.Load(), asked.Load())
	}
}

// What can never be fetched is refused when it is named, not tried for a day.
func TestParsePorts(t *testing.T) {
	t.Parallel()
	for address, good := range map[string]bool{
		"http://example.com:1/": true, "https://example.com:65535/": true, "http://example.com:/": true,
		"http://example.com:0/": false, "http://example.com:65536/": false, "http://example.com:99999999999999999999/": false,
	} {
		if _, err := egress.Parse(address); (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
	}
}
