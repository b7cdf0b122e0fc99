package anthropic

import (
	"bytes"
	"encoding/json"

	"github.com/chainstream/chainstream/llm"
)

// maxRawUsage bounds the usage object that is kept.
const maxRawUsage = 16 << 10

// usage collects what the provider says of tokens: the input at the start, the
// output, cumulative, towards the end.
type usage struct {
	fields map[string]json.RawMessage
	final  bool // the figures of the whole answer came
}

// merge adds a usage object. Later fields win, but null and 0 say nothing where
// there was a figure: not every server repeats those of the input.
func (u *usage) merge(data json.RawMessage, final bool) {
	var fields map[string]json.RawMessage
	if len(data) > maxRawUsage || json.Unmarshal(data, &fields) != nil || fields == nil {
		return
	}
	if u.fields == nil {
		u.fields = map[string]json.RawMessage{}
	}
	for name, value := range fields {
		if _, known := u.fields[name]; known && (string(value) == "null" || string(value) == "0") {
			continue
		}
		u.fields[name] = bytes.Clone(value)
	}
	u.final = u.final || final
}

// read normalises the figures; false when there are none, or none that can be
// true. The API counts the parts of the cache beside the input, not within.
func (u *usage) read() (llm.Usage, bool) {
	raw, err := json.Marshal(u.fields)
	if err != nil || u.fields == nil || len(raw) > maxRawUsage {
		return llm.Usage{}, false
	}
	var counts struct {
		Input      int64 `json:"input_tokens"`
		CacheWrite int64 `json:"cache_creation_input_tokens"`
		CacheRead  int64 `json:"cache_read_input_tokens"`
		Output     int64 `json:"output_tokens"`
		Details    struct {
			Thinking int64 `json:"thinking_tokens"`
		} `json:"output_tokens_details"`
	}
	if json.Unmarshal(raw, &counts) != nil || max(counts.Input, counts.CacheWrite, counts.CacheRead) > llm.MaxTokenCount {
		return llm.Usage{}, false
	}
	read := llm.Usage{
		InputTokens:      counts.Input + counts.CacheWrite + counts.CacheRead,
		OutputTokens:     counts.Output,
		CachedTokens:     counts.CacheRead,
		CacheWriteTokens: counts.CacheWrite,
		ReasoningTokens:  counts.Details.Thinking,
		Raw:              raw,
	}
	// No prompt is empty: servers that do not count send zeros.
	return read, counts.Input >= 0 && read.InputTokens > 0 && read.Plausible()
}
