package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// documented answers the one code block of this language in a document. What is
// tested is what an operator copies.
func documented(t *testing.T, document, language string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + document)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "\n```"+language+"\n")
	if len(blocks) != 2 {
		t.Fatalf("%s has %d blocks of %s, want one", document, len(blocks)-1, language)
	}
	block, _, _ := strings.Cut(blocks[1], "\n```")
	return block + "\n"
}

// replace puts what is true on this machine into a documented text: old and new
// in turn. Each of the old stands in it once.
func replace(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if n := strings.Count(text, pairs[i]); n != 1 {
			t.Fatalf("%q stands %d times in the text, want once:\n%s", pairs[i], n, text)
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

// installed answers the path of a program that scripts/setup.sh --test installs.
func installed(t *testing.T, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name} { // not in everybody's PATH
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Fatalf("%s is missing: scripts/setup.sh --test installs it", name)
	return ""
}

// writeFile writes a file of the account that runs the tests.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// frontend starts a proxy on a free port and answers its address. begin starts
// it for an address, which somebody else may take in the meantime.
func frontend(ctx context.Context, t *testing.T, begin func(address string) *process) string {
	t.Helper()
	const tries = 5
	for range tries {
		var config net.ListenConfig
		listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := listener.Addr().String()
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		p := begin(address)
		up := false
		eventually(ctx, t, "the proxy listens", func() bool {
			var dialer net.Dialer
			conn, err := dialer.DialContext(ctx, "tcp", address)
			if err == nil {
				_ = conn.Close() // nothing was sent
				up = !p.Ended()
			}
			return up || p.Ended()
		})
		if up {
			return address
		}
		t.Logf("the proxy ended:\n%s", p.Stderr.Tail())
	}
	t.Fatalf("the proxy did not start in %d tries", tries)
	return ""
}

// startNginx starts nginx with one part of its http block, which site writes
// for an address and a folder. Everything else has its default, but for
// the places of files.
func startNginx(ctx context.Context, t *testing.T, site func(address, dir string) string) string {
	t.Helper()
	path := installed(t, "nginx")
	return frontend(ctx, t, func(address string) *process {
		dir := openDir(t)
		var b strings.Builder
		if os.Geteuid() == 0 {
			b.WriteString("user root;\n") // its files are those of the tests
		}
		fmt.Fprintf(&b, "pid %s/nginx.pid;\nevents {}\nhttp {\naccess_log off;\n", dir)
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			fmt.Fprintf(&b, "%s_temp_path %s/%s;\n", kind, dir, kind)
		}
		fmt.Fprintf(&b, "%s}\n", site(address, dir))
		file := filepath.Join(dir, "nginx.conf")
		writeFile(t, file, b.String())
		return startOther(t, path, io.Discard, nil, "-e", "stderr", "-p", dir, "-c", file, "-g", "daemon off;")
	})
}

// startCaddy starts Caddy with a Caddyfile, which site writes for an address.
func startCaddy(ctx context.Context, t *testing.T, site func(address string) string) string {
	t.Helper()
	path := installed(t, "caddy")
	return frontend(ctx, t, func(address string) *process {
		dir := openDir(t)
		file := filepath.Join(dir, "Caddyfile")
		writeFile(t, file, "{\n\tadmin off\n\tauto_https off\n}\n"+site(address))
		home := []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}
		return startOther(t, path, io.Discard, home, "run", "--adapter", "caddyfile", "--config", file)
	})
}

// behind is a server as it is seen through a proxy.
func (s *server) behind(address string) *server {
	return &server{process: s.process, url: "http://" + address, client: s.client}
}

// behindTLS is behind for a proxy that speaks TLS with a certificate of these
// roots; HTTP/2 for calls, HTTP/1.1 for streams.
func (s *server) behindTLS(t *testing.T, address string, roots *x509.CertPool) *server {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	return &server{
		process: s.process, url: "https://" + address, client: &http.Client{Transport: transport},
		dial: func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", address) },
	}
}

// certificate writes a certificate for this machine and its key.
func certificate(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	writeFile(t, certFile, string(text))
	writeFile(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return roots
}
