// Package migrations holds the numbered schema changes of the database, each
// with its way back. sqlc reads the same files.
package migrations

import "embed"

// FS has the files NNNNNN_name.up.sql and NNNNNN_name.down.sql.
//
//go:embed *.sql
var FS embed.FS
