package embedded

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// accessRules is the pg_hba.conf of every cluster.
const accessRules = `# Written by Chainstream at every start; changes here are lost.
local all all               scram-sha-256
host  all all 127.0.0.1/32  scram-sha-256
`

const mebibyte = 1 << 20

// configure writes the server's settings, which come on top of what initdb left
// in PostgreSQL's own folder, and its access rules, which replace initdb's.
func (c *Cluster) configure(ctx context.Context) error {
	settings := builtinSettings(memory())
	if err := c.account.run(ctx, c.paths.data, "", c.bin.program("postgres"), "-D", c.paths.data,
		"-C", "wal_compression", "-c", "wal_compression=lz4", "-c", "default_toast_compression=lz4"); err == nil {
		settings["wal_compression"] = "lz4"
		settings["default_toast_compression"] = "lz4"
	} else if ctx.Err() != nil {
		return err
	}
	maps.Copy(settings, c.config.Settings)
	text, err := renderSettings(settings)
	if err != nil {
		return err
	}
	// Readable by all, as PostgreSQL's account must read them: no secrets here.
	if err := replaceFile(c.paths.settings, text, 0o644); err != nil {
		return fmt.Errorf("write the database's settings: %w", err)
	}
	if err := replaceFile(c.paths.access, accessRules, 0o644); err != nil {
		return fmt.Errorf("write the database's access rules: %w", err)
	}
	return nil
}

// builtinSettings tunes PostgreSQL for many small durable appends beside the
// server process on one machine with the given memory in bytes.
func builtinSettings(memory uint64) map[string]string {
	inMiB := func(bytes uint64) string { return strconv.FormatUint(bytes/mebibyte, 10) + "MB" }
	buffers := min(max(memory/4, 128*mebibyte), 4096*mebibyte)
	return map[string]string{
		// What was acknowledged is on disk.
		"fsync":              "on",
		"full_page_writes":   "on",
		"synchronous_commit": "on",

		"shared_buffers":       inMiB(buffers),
		"effective_cache_size": inMiB(max(memory/2, buffers)),
		"maintenance_work_mem": inMiB(min(max(memory/32, 64*mebibyte), 512*mebibyte)),
		"work_mem":             "8MB",
		"max_connections":      "200",

		// Few, spread checkpoints: full-page images are most of the log volume
		// of small updates.
		"wal_compression":              "on",
		"wal_buffers":                  "16MB",
		"min_wal_size":                 "512MB",
		"max_wal_size":                 "4GB",
		"checkpoint_timeout":           "15min",
		"checkpoint_completion_target": "0.9",

		"random_page_cost": "1.1", // solid-state disks
		"jit":              "off", // costs more than it saves on short queries

		// executions is updated with every append: its dead rows must go before
		// they fill the pages that heap-only updates need.
		"autovacuum_naptime":                    "15s",
		"autovacuum_vacuum_scale_factor":        "0.05",
		"autovacuum_vacuum_insert_scale_factor": "0.1",
		"autovacuum_analyze_scale_factor":       "0.05",
		"autovacuum_vacuum_cost_limit":          "2000",

		// Statements and row values may hold what users wrote; the log does not.
		"log_min_messages":        "warning",
		"log_min_error_statement": "panic",
		"log_error_verbosity":     "terse",
		"log_checkpoints":         "off",
		"log_line_prefix":         "%m [%p] ",
		"log_timezone":            "UTC",
		"logging_collector":       "off", // this package keeps the file small
		"log_destination":         "stderr",

		"TimeZone":            "UTC",
		"password_encryption": "scram-sha-256",
		"ssl":                 "off", // loopback and a private socket only
		"cluster_name":        "chainstream",
	}
}

var parameterPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// renderSettings writes parameters as a configuration file, sorted.
func renderSettings(settings map[string]string) (string, error) {
	var text strings.Builder
	text.WriteString("# Written by Chainstream at every start; changes here are lost.\n")
	// What initdb found out about the machine: locale, kind of shared memory.
	text.WriteString("include 'data/postgresql.conf'\n")
	for _, name := range slices.SortedFunc(maps.Keys(settings), cmp.Compare[string]) {
		value := settings[name]
		if !parameterPattern.MatchString(name) || strings.ContainsAny(value, "\n\r\x00") {
			return "", fmt.Errorf("database setting %q = %q cannot be written", name, value)
		}
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(value))
	}
	return text.String(), nil
}
