package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/chainstream/chainstream/postgres"
)

// A turn that a stop cuts off begins again, and was no try that failed.
func TestStopCutsOff(t *testing.T) {
	t.Parallel()
	for name, failed := range map[string]func(context.Context) error{
		"with the cause":      context.Cause,
		"with its own words":  func(context.Context) error { return errors.New("what was read has no end") },
		"with what ended ctx": func(ctx context.Context) error { return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLibrary(t)
			begun := make(chan struct{})
			jobs, err := l.Jobs(postgres.JobsConfig{
				Ingest: func(ctx context.Context, _ int64, _ int) (bool, error) {
					close(begun)
					<-ctx.Done()
					return false, failed(ctx)
				},
				Workers: 1, Owner: "test", Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := jobs.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.save(l.repository("docs", "test/a", 8).ID, "a.txt", "A text.", "")
			<-begun
			now, cancel := context.WithCancel(t.Context())
			cancel()
			if err := jobs.Stop(now); !errors.Is(err, context.Canceled) {
				t.Errorf("stop: %v", err)
			}
			if n := l.count("SELECT count(*) FROM river_job WHERE kind = 'ingest_document' AND state = 'available' AND coalesce(cardinality(errors), 0) = 0 AND attempt = 0"); n != 1 {
				t.Errorf("%d jobs wait as if they had not begun", n)
			}
		})
	}
}
