package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// supervise watches over PostgreSQL until Stop, or until it cannot be kept up.
func (c *Cluster) supervise(ctx context.Context) {
	defer close(c.done)
	var crashes []time.Time
	for {
		srv := c.current()
		<-srv.exited
		if c.isStopping() {
			return
		}
		err := srv.failure()
		srv.log.close()
		begin := time.Now()
		for err != nil {
			now := time.Now()
			crashes = append(slices.DeleteFunc(crashes, func(t time.Time) bool { return now.Sub(t) > crashWindow }), now)
			if len(crashes) > c.config.MaxRestarts {
				if len(crashes) > 1 {
					err = fmt.Errorf("%w; it was the %d. time within %s", err, len(crashes), crashWindow)
				}
				c.fail(err)
				return
			}
			c.logger.Warn("the embedded database ended unexpectedly and is started again", "data_dir", c.paths.root, "error", err)
			if err = c.restart(ctx); err != nil { // it counts like an end
				_ = c.current().stop(ctx, quitTimeout) // what is left of it; the next try says what is wrong
			}
			if c.isStopping() {
				return
			}
		}
		c.logger.Info("embedded database ready again", "data_dir", c.paths.root, "duration_ms", time.Since(begin).Milliseconds())
	}
}

// restart starts PostgreSQL where it was, because connection strings name the
// port. What the killed server left behind is cleared away first. The name of
// the socket holds the port as well, so that a port that was taken meanwhile is
// done without.
func (c *Cluster) restart(ctx context.Context) error {
	if err := c.clearOrphans(ctx); err != nil {
		return err
	}
	err := c.up(ctx)
	if errors.Is(err, errPortTaken) {
		c.logger.Warn("the port of the embedded database was taken meanwhile; it serves its socket alone until the next start", "port", c.port)
		c.listen = ""
		c.current().log.close()
		err = c.up(ctx)
	}
	return err
}

// up makes a new process and waits until it accepts connections. A process of a
// killed server can still hold its memory for a moment after it has left the
// list of processes; PostgreSQL does not start before that is over.
func (c *Cluster) up(ctx context.Context) error {
	for deadline := time.Now().Add(quitTimeout); ; {
		if err := c.spawnCurrent(); err != nil {
			return err
		}
		err := c.awaitReady(ctx)
		if !errors.Is(err, errMemoryInUse) || time.Now().After(deadline) {
			return err
		}
		c.current().log.close()
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return fmt.Errorf("wait for the database: %w", context.Cause(ctx))
		}
	}
}

// spawnCurrent makes a new process the current server, unless the cluster is
// being stopped.
func (c *Cluster) spawnCurrent() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return context.Canceled
	}
	srv, err := c.spawn()
	if err != nil {
		return fmt.Errorf("start %s: %w", c.bin.program("postgres"), err)
	}
	c.server = srv
	return nil
}

func (c *Cluster) current() *server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server
}

func (c *Cluster) isStopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

func (c *Cluster) fail(err error) {
	c.logger.Error("the embedded database is given up", "data_dir", c.paths.root, "error", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = err
}
