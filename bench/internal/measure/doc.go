// Package measure takes the figures that a benchmark reports: processor time and
// memory of processes as the kernel books them, distributions of latencies, and
// the tables that show them. What it reads comes from /proc, so measuring works
// on Linux alone.
package measure
