// Package web holds the first page of Chainstream: plain HTML, CSS and ES
// modules that are compiled into the binary and served as they are, without a
// build step.
//
// The page is a reader of the public API and of the event stream, nothing
// more: it has no endpoint of its own. It keeps its routes in the fragment of
// the address, so a server needs no rewriting: "/" answers index.html and every
// other file answers under its own name.
//
// Every asset is same-origin and nothing is inline, so the page runs under
// the Content-Security-Policy "default-src 'self'".
package web

import (
	"embed"
	"io/fs"
)

//go:embed page
var page embed.FS

// FS returns the files of the page, index.html at the root. The file system
// is read-only and safe for concurrent use.
func FS() fs.FS {
	root, err := fs.Sub(page, "page")
	if err != nil {
		// fs.Sub refuses only a malformed path, and this one is a constant.
		panic("web: open the embedded page: " + err.Error())
	}
	return root
}
