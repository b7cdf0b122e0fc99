package events_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/chainstream/chainstream/events"
)

// folded folds payloads as if they stood in a log, a second apart.
func folded(t *testing.T, payloads ...events.Payload) *events.Fold {
	t.Helper()
	f := events.NewFold()
	for i, p := range payloads {
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		rec := events.Record{Seq: int64(i + 1), Stream: events.MainStream, Type: p.EventType(), Data: data, Time: time.Unix(int64(i), 0)}
		if err := f.Add(rec); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// Only the deltas of the newest attempt are text; what the older ones cost stays.
func TestFoldOfAttempts(t *testing.T) {
	t.Parallel()
	free := "0"
	log := []events.Payload{
		events.ExecutionStart{TotalPrompts: 1},
		events.PromptStart{PromptID: 3, PromptName: "P", Position: 1, ModelID: "a/b", Attempt: 1},
		events.LLMRequest{PromptID: 3, RequestID: "r", Attempt: 1},
		events.PromptDelta{PromptID: 3, Attempt: 1, Text: "old"},
		events.LLMError{PromptID: 3, Attempt: 1, InputTokens: 4, OutputTokens: 1, CachedTokens: 2, CacheWriteTokens: 1, ReasoningTokens: 1, UsageSource: "estimated", CostUSD: &free},
		events.PromptRetry{PromptID: 3, Attempt: 2},
		events.PromptStart{PromptID: 3, PromptName: "P", Position: 1, ModelID: "c/d", Attempt: 2},
		events.LLMRequest{PromptID: 3, RequestID: "s", Attempt: 2},
		events.PromptDelta{PromptID: 3, Attempt: 1, Text: "late"},
		events.PromptDelta{PromptID: 3, Attempt: 2, Text: "new"},
		events.ReasoningDelta{PromptID: 3, Attempt: 2, Text: "hm"},
	}
	for seq, want := range map[int]string{4: "old", 5: "old", 6: "", 9: "", 11: "new"} {
		if got := folded(t, log[:seq]...).Prompts()[0].Output; got != want {
			t.Errorf("after event %d the text is %q, want %q", seq, got, want)
		}
	}
	f := folded(t, log...)
	p := f.Prompt(3)
	if p.Attempt != 2 || p.ModelID != "c/d" || p.FirstSeq != 7 || p.InputTokens != 4 || !p.UsageEstimated || !p.StartedAt.Equal(time.Unix(1, 0)) {
		t.Errorf("state %+v", p.PromptState)
	}
	if p.CachedTokens != 2 || p.CacheWriteTokens != 1 || p.ReasoningTokens != 1 || p.CostUSD == nil || *p.CostUSD != "0" {
		t.Errorf("parts and cost %+v", p.PromptState)
	}
	if p.Call == nil || p.Call.RequestID != "s" || p.Reasoning() != "hm" || f.LastSeq() != 11 || f.Terminal() != "" {
		t.Errorf("open call %+v, last event %d", p.Call, f.LastSeq())
	}
	if folded(t).LastSeq() != 0 || len(folded(t).Prompts()) != 0 {
		t.Error("something stands before the first event")
	}
}

// An answer from the cache is summed apart from what was paid, and a new attempt
// knows nothing of what an older one was told.
func TestFoldOfCachedPrompts(t *testing.T) {
	t.Parallel()
	free, dear := "0", "0.25"
	f := folded(t,
		events.PromptStart{PromptID: 1, Attempt: 1},
		events.CacheHit{PromptID: 1, RequestID: "h", SourceExecutionID: 9, SavedInputTokens: 70, SavedOutputTokens: 7, SavedCostUSD: &dear},
		events.PromptDelta{PromptID: 1, Attempt: 1, Text: "again"},
		events.PromptComplete{PromptID: 1, Output: "again", Cached: true, CostUSD: &free, Attempt: 1},
		events.PromptStart{PromptID: 2, Attempt: 1},
		events.CacheMiss{PromptID: 2, RequestID: "m"},
		events.PromptComplete{PromptID: 2, Output: "new", InputTokens: 3, OutputTokens: 2, CostUSD: &dear, Attempt: 1},
		events.PromptStart{PromptID: 3, Attempt: 1},
		events.CacheHit{PromptID: 3, RequestID: "h2", SourceExecutionID: 9, SavedInputTokens: 1000},
		events.PromptRetry{PromptID: 3, Attempt: 2},
		events.PromptStart{PromptID: 3, Attempt: 2})
	got := events.Totalled(f.Prompts())
	if got.InputTokens != 3 || got.SavedTokens != 77 || got.ReusedTokens != 0 || got.SavedCostUSD == nil || *got.SavedCostUSD != "0.25" {
		t.Errorf("totals %+v", got)
	}
	hit, miss, again := f.Prompt(1), f.Prompt(2), f.Prompt(3)
	if !hit.Cached || hit.Cache != events.CacheToldHit || hit.Saved == nil || hit.Saved.ExecutionID != 9 || hit.Output != "again" {
		t.Errorf("the hit: %+v", hit.PromptState)
	}
	if miss.Cached || miss.Cache != events.CacheToldMiss || miss.Saved != nil || again.Cache != "" || again.Saved != nil {
		t.Errorf("the miss: %+v, the new attempt: %+v", miss.PromptState, again.PromptState)
	}
}

// What was taken over is summed apart from what was paid.
func TestFoldOfReusedPrompts(t *testing.T) {
	t.Parallel()
	free, dear := "0", "0.25"
	from := &events.ReusedFrom{ExecutionID: 9, InputTokens: 70, OutputTokens: 7, CostUSD: &dear}
	f := folded(t,
		events.ExecutionStart{TotalPrompts: 2},
		events.PromptStart{PromptID: 1, Attempt: 1, ReusedFrom: from},
		events.PromptComplete{PromptID: 1, Output: "kept", CostUSD: &free, Attempt: 1, ReusedFrom: from},
		events.PromptStart{PromptID: 2, Attempt: 1},
		events.PromptComplete{PromptID: 2, Output: "new", InputTokens: 3, OutputTokens: 2, CostUSD: &dear, Attempt: 1},
		events.ExecutionComplete{Success: true})
	got := events.Totalled(f.Prompts())
	if got.InputTokens != 3 || got.OutputTokens != 2 || *got.CostUSD != "0.25" || got.ReusedTokens != 77 || *got.SavedCostUSD != "0.25" {
		t.Errorf("totals %+v", got)
	}
	if o := f.Outcome(); o.Status != "completed" || *o.InputTokens != 3 || !o.FinishedAt.Equal(time.Unix(5, 0)) {
		t.Errorf("outcome %+v", o)
	}
	if p := f.Prompt(1); p.Reused == nil || p.Reused.ExecutionID != 9 || p.Output != "kept" {
		t.Errorf("reused prompt %+v", p.PromptState)
	}
	if err := events.NewFold().Add(events.Record{Seq: 1, Type: events.TypePromptStart, Data: []byte("{")}); err == nil {
		t.Error("an event that cannot be read is taken")
	}
}
