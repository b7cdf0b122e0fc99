// Package rig sets up what is measured: a durable PostgreSQL of its own, the
// parts of the server on it, the whole server as a program, or a server of
// Server-Sent Events alone in a process that a benchmark steers.
package rig
