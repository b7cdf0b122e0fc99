package postgres_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chainstream/chainstream/events"
	"github.com/chainstream/chainstream/executor"
)

// The reports that analysts have been running on the event table run as they
// are, through psql, and answer the right figures.
func TestReportsRunUnchanged(t *testing.T) {
	t.Parallel()
	s, url := open(t)
	broker := events.NewBroker(s, events.BrokerConfig{})
	defer broker.Close()
	tick := time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)
	log := events.NewLog(s, broker, events.LogConfig{Now: func() time.Time { return tick }}) // events are a microsecond apart
	write := func(ex executor.Execution, payloads ...events.Payload) {
		t.Helper()
		w := log.Writer(ex.ID, ex.Epoch, 0, nil)
		defer w.Close()
		drafts := make([]events.Draft, len(payloads))
		for i, p := range payloads {
			drafts[i].Payload = p
		}
		if err := w.Append(events.Batch{Events: drafts}).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	first, second := claimed(t, s), claimed(t, s)
	write(first,
		events.ExecutionStart{ToolName: "brief"},
		events.KnowledgeRetrievalStart{PromptID: 5, Repositories: []int64{3, 8}},
		events.KnowledgeRetrieved{PromptID: 5, DocumentsFound: 4},
		events.PromptComplete{PromptID: 5, Duration: 100}, events.PromptComplete{PromptID: 6, Duration: 300},
		events.ExecutionComplete{Success: true})
	write(second,
		events.ExecutionStart{ToolName: "brief"},
		events.KnowledgeRetrievalStart{PromptID: 5, Repositories: []int64{3}},
		events.ExecutionError{Error: "x", Code: "x"})
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err := os.Open("testdata/reports.sql")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = report.Close() }()
	cmd := exec.CommandContext(t.Context(), "psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "executionId=1", url)
	cmd.Stdin = report
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := string(out)
	for _, want := range []string{
		"|1|execution-start|",    // all events of an execution
		"\n5|4\n",                // prompts with knowledge retrieval
		"\n200.0000000000000000", // mean prompt duration
		"\nbrief|0.00500000",     // mean execution time by tool
		"\n3|2\n8|1\n",           // most used repositories
		"\nbrief|0.5\n",          // error rate by tool
	} {
		if !strings.Contains("\n"+got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}
