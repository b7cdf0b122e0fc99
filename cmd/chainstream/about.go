package main

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"

	"github.com/chainstream/chainstream/httpapi"
	"github.com/chainstream/chainstream/web"
)

// version is what the Go command stamped into the binary: a tag, or a
// pseudo-version of the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "dev"
	}
	return info.Main.Version
}

// versionCommand is chainstream version.
type versionCommand struct {
	JSON bool `help:"Print JSON."`
}

// Run prints the version.
func (c *versionCommand) Run(a *app) error {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	if c.JSON {
		return a.printJSON(map[string]string{"version": version(), "go": runtime.Version(), "platform": platform})
	}
	return a.printf("chainstream %s (%s, %s)\n", version(), runtime.Version(), platform)
}

// openAPICommand is chainstream openapi.
type openAPICommand struct{}

// Run prints the document that a server of this version answers at /openapi.json.
func (*openAPICommand) Run(ctx context.Context, a *app) error {
	api, err := httpapi.New(httpapi.Config{Web: web.FS(), Version: version()})
	if err != nil {
		return fmt.Errorf("build the HTTP API: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/openapi.json", http.NoBody)
	if err != nil {
		return fmt.Errorf("ask for the document: %w", err)
	}
	answer := &recorder{header: make(http.Header)}
	api.Handler().ServeHTTP(answer, req)
	if answer.status != http.StatusOK {
		return fmt.Errorf("the document was answered with status %d", answer.status)
	}
	return a.printf("%s\n", answer.body)
}

// recorder keeps an answer in memory.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.body = append(r.body, p...)
	return len(p), nil
}
