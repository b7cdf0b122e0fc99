// Package replica tells the processes that share a database what has changed in
// it: which logs have grown, that the queue has something, which executions are
// to be stopped.
//
// What it tells are hints. They are gathered and sent at most once in 10 ms per
// process, on a connection of their own and never in a transaction that writes.
// A hint may be lost, come twice, late, in another order, or be invented: whoever
// receives one looks into the database, and looks there once a second without
// any. So hints make things fast and are never what makes them right.
package replica
