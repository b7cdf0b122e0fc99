// Command claim measures what it costs to take executions from a long queue.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainstream/chainstream/bench/internal/measure"
	"github.com/chainstream/chainstream/bench/internal/program"
	"github.com/chainstream/chainstream/bench/internal/rig"
)

const about = `
Claims of executions from a queue of 100,000, by one server that runs 500 others,
in a database that has finished 100,000. The queue is of one chain, or of 1,000;
one execution is taken at a time, as when one worker has become free, or 100.
What is claimed ends at once, which is not in the time. Claims wait for the disk.`

func main() { os.Exit(program.Main("claim", about, define)) }

// config is what is measured.
type config struct {
	take           time.Duration
	queued, before int
}

func define(flags *flag.FlagSet) program.Run {
	var c config
	flags.DurationVar(&c.take, "duration", 3*time.Second, "of each measurement")
	flags.IntVar(&c.queued, "queued", 100_000, "executions that wait")
	flags.IntVar(&c.before, "finished", 100_000, "executions that have ended before")
	return c.run
}

func (c *config) run(ctx context.Context, w io.Writer) error {
	table := measure.NewTable("queue of", "at a time", "mean claim", "p99", "claims/s", "executions/s", "foreign load")
	for _, chains := range []int{1, 50, 1000} {
		if err := c.queue(ctx, chains, table); err != nil {
			return err
		}
	}
	_, err := table.WriteTo(w)
	return err
}

// queue measures a queue of so many chains.
func (c *config) queue(ctx context.Context, chains int, table *measure.Table) (err error) {
	database, err := rig.StartDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	conn, err := pgx.Connect(ctx, database.URL)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // what was measured stands
	for _, statement := range []string{
		fmt.Sprintf(`INSERT INTO chains (name, version) SELECT 'c' || n, 1 FROM generate_series(1, %d) n`, chains),
		`INSERT INTO chain_versions SELECT id, 1, '', '{}', '{}' FROM chains WHERE deleted_at IS NULL`,
		c.fill("completed", c.before, chains, "NULL"), c.fill("running", 500, chains, "now() + interval '1 day'"), c.fill("queued", c.queued, chains, "NULL"),
		`VACUUM ANALYZE`,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("fill the queue: %w", err)
		}
	}
	for _, portion := range []int{1, 100} {
		if err := c.measure(ctx, database, conn, chains, portion, table); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) fill(status string, n, chains int, lease string) string {
	return fmt.Sprintf(`INSERT INTO executions (chain_id, chain_version, chain_name, inputs, total_prompts, status, lease_expires_at)
		SELECT 1 + n %% %d, 1, 'bench', '{}', 1, '%s', %s FROM generate_series(1, %d) n`, chains, status, lease, n)
}

func (c *config) measure(ctx context.Context, database *rig.Database, conn *pgx.Conn, chains, portion int, table *measure.Table) error {
	foreign, err := measure.WatchForeign()
	if err != nil {
		return err
	}
	var latency measure.Latencies
	var took time.Duration
	claimed := 0
	for left := c.queued / 3; took < c.take && left > 0; {
		begin := time.Now()
		list, err := database.Store.Claim(ctx, "bench", portion, time.Hour)
		d := time.Since(begin)
		if err != nil {
			return err
		}
		if len(list) != portion {
			return fmt.Errorf("claimed %d of %d", len(list), portion)
		}
		took += d
		latency.Add(d, 1)
		claimed += portion
		left -= portion
		ids := make([]int64, len(list))
		for i, ex := range list {
			ids[i] = ex.ID
		}
		if _, err := conn.Exec(ctx, `UPDATE executions SET status = 'completed', finished_at = now() WHERE id = ANY($1)`, ids); err != nil {
			return fmt.Errorf("end what was claimed: %w", err)
		}
	}
	share, err := foreign.Share()
	if err != nil {
		return err
	}
	table.Row(measure.Thousands(float64(chains))+" chains", fmt.Sprint(portion),
		measure.Millis(latency.Mean()), measure.Millis(latency.Quantile(0.99)),
		measure.Figures(float64(latency.Count())/took.Seconds()), measure.Figures(float64(claimed)/took.Seconds()), measure.Percent(share))
	return nil
}
