// Package docs holds the documentation, for servers that answer questions about it.
package docs

import "embed"

// Files are the pages, in Markdown.
//
//go:embed *.md
var Files embed.FS
