package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/chainstream/chainstream/httpapi"
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
func (*openAPICommand) Run(a *app) error {
	document, err := httpapi.OpenAPI(version())
	if err != nil {
		return fmt.Errorf("read the API description: %w", err)
	}
	return a.printf("%s\n", document)
}
