package chaos_test

import (
	"encoding/binary"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chainstream/chainstream/llm/llmtest"
)

// chains are what is run. The outputs follow from the inputs by expected.
const chains = `
name: brief
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: Outline, position: 1, model: openai/m, content: "Outline ${topic}"}
  - {name: Left, position: 2, model: openai/m, content: "Left of ${outline}"}
  - {name: Right, position: 2, model: openai/m, content: "Right of ${outline}"}
  - {name: Merge, position: 3, model: openai/m, content: "Merge ${left} and ${right}"}
---
name: solo
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: Text, position: 1, model: openai/m, content: "Text on ${topic}"}
---
name: endless
inputs:
  topic: {type: short_text, required: true}
prompts:
  - {name: Text, position: 1, model: openai/m, content: "Text on ${topic}"}
  - {name: Endless, position: 2, model: openai/m, content: "Endless ${text}"}
`

// The chains by name.
const (
	chainBrief   = "brief"
	chainSolo    = "solo"
	chainEndless = "endless" // ends by being cancelled, and not otherwise
)

// expected answers what the prompts of a chain must say, by name.
func expected(chain, topic string) map[string]string {
	switch chain {
	case chainBrief:
		outline := answer("Outline " + topic)
		left, right := answer("Left of "+outline), answer("Right of "+outline)
		return map[string]string{"Outline": outline, "Left": left, "Right": right, "Merge": answer("Merge " + left + " and " + right)}
	case chainEndless:
		text := answer("Text on " + topic)
		return map[string]string{"Text": text, "Endless": answer("Endless " + text)}
	default:
		return map[string]string{"Text": answer("Text on " + topic)}
	}
}

var words = strings.Fields(`river delta stone ledger harbour signal lantern orchard granite meadow copper thread
	compass anchor willow ember archive beacon cobalt drift echo fathom glacier hollow`)

// answer is the model: a text that follows from what it is asked.
func answer(message string) string {
	random := rand.New(rand.NewPCG(hash(0, message), 1))
	var b strings.Builder
	for i := range 10 + random.IntN(40) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(words[random.IntN(len(words))])
	}
	return b.String()
}

func hash(seed uint64, text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, seed)) // never fails
	_, _ = h.Write([]byte(text))
	return h.Sum64()
}

// model is a server that answers as answer does, but not always well. What goes
// wrong with the n-th call of a message follows from the seed.
type model struct {
	seed   uint64
	url    string        // its base, for OPENAI_BASE_URL
	hangUp func()        // closes the connections to it
	pace   time.Duration // the longest wait between two pieces
	faulty float64       // share of the calls that go wrong; retries of more than a tenth are not made

	mu    sync.Mutex
	calls map[string]int
	kinds map[string]int // faults so far
}

func startModel(t *testing.T, seed uint64) *model {
	t.Helper()
	m := &model{seed: seed, pace: 100 * time.Millisecond, faulty: 0.06, calls: make(map[string]int), kinds: make(map[string]int)}
	fake := llmtest.New()
	fake.Otherwise(m.reply)
	server := httptest.NewServer(fake)
	t.Cleanup(func() {
		fake.Close()
		server.CloseClientConnections()
		server.Close()
	})
	m.url, m.hangUp = server.URL+"/v1", server.CloseClientConnections
	return m
}

// maxFaults is how often the same message is answered badly: fewer times than a
// prompt is tried, so that no execution fails for the model's sake.
const maxFaults = 2

func (m *model) reply(req llmtest.Request) llmtest.Reply {
	message := req.Last()
	m.mu.Lock()
	n := m.calls[message]
	m.calls[message]++
	m.mu.Unlock()
	random := rand.New(rand.NewPCG(hash(m.seed, message), uint64(n)))

	text := strings.SplitAfter(answer(message), " ")
	good := llmtest.Reply{llmtest.Role()}
	for len(text) > 0 {
		piece := min(len(text), 1+random.IntN(6))
		good = append(good, llmtest.Delta(strings.Join(text[:piece], "")), llmtest.Delay(time.Duration(random.Int64N(int64(m.pace)))))
		text = text[piece:]
	}
	if strings.HasPrefix(message, "Endless ") {
		return append(good[:1+random.IntN(len(good)-1)], llmtest.Stall())
	}
	tail := llmtest.Reply{llmtest.Finish("stop"), llmtest.Usage(7, int64(len(good)/2)), llmtest.Done()}
	if n >= maxFaults || random.Float64() >= m.faulty {
		return append(good, tail...)
	}
	some := slices.Clip(good[:random.IntN(len(good))])
	bad := map[string]llmtest.Reply{
		"429":          llmtest.Status(429, "Retry-After", "1"),
		"500":          llmtest.Status(500),
		"503":          llmtest.Status(503, "Retry-After", "nonsense"),
		"529":          llmtest.Status(529),
		"truncate":     some,                          // ends cleanly without an end marker
		"cut":          append(some, llmtest.Cut()),   // in the middle of the body
		"reset":        append(some, llmtest.Reset()), //
		"stream error": append(some, llmtest.StreamError("overloaded", "server_error")),
		"stall":        append(some, llmtest.Delay(time.Duration(1+random.IntN(4))*time.Second), llmtest.Cut()),
		"slow":         append(append(some, llmtest.Delay(time.Duration(2+random.IntN(11))*time.Second)), append(good[len(some):], tail...)...),
	}
	names := []string{"429", "500", "503", "529", "truncate", "cut", "reset", "stream error", "stall", "slow"}
	kind := names[random.IntN(len(names))]
	m.mu.Lock()
	m.kinds[kind]++
	m.mu.Unlock()
	return bad[kind]
}

// faults answers how often the model has misbehaved, by kind.
func (m *model) faults() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.kinds)
}
