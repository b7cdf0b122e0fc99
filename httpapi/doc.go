// Package httpapi serves Chainstream over HTTP: chains, executions, their
// events as live streams and as downloads, the web page, and what operators
// probe. It is the only package that knows the web framework.
//
// A handler reads and checks the request, makes one call, and encodes the
// answer; it returns errors, and one place turns them into problem documents
// (RFC 9457). A stream is a cursor over the log: it holds one goroutine and no
// queue, a slow reader is cut by a write deadline and resumes with
// Last-Event-ID, and closing it never stops an execution.
//
// There are no accounts yet. The server is for the machine it runs on, so every
// request must name a loopback host and must not come from a foreign page; see
// guard.go.
package httpapi
