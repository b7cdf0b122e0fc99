package chain

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a document. They keep a hostile document from costing more than its size.
const (
	// MaxDocumentBytes is the size of the largest document that Parse reads.
	MaxDocumentBytes = 4 << 20
	// MaxDepth is the deepest nesting of objects and lists, in documents, inputs and outputs.
	MaxDepth = 64
	// MaxPrompts is the largest number of prompts of a chain.
	MaxPrompts = 1000
	// MaxInputs is the largest number of inputs of a chain.
	MaxInputs = 200
	// MaxContentBytes is the size of the largest content or system text, in bytes.
	MaxContentBytes = 1 << 20
	// MaxFileBytes is the size of the largest value of a file input, in bytes of text.
	MaxFileBytes = 2 << 20
	// MaxRenderedBytes is the size of the largest text that Render makes, system and user text each.
	MaxRenderedBytes = 16 << 20
	// MaxTimeout is the longest timeout of a chain or a prompt.
	MaxTimeout = 24 * time.Hour
	// MinCacheTTL is the shortest time for which an answer is remembered.
	MinCacheTTL = time.Second
	// MaxCacheTTL is the longest.
	MaxCacheTTL = 30 * 24 * time.Hour
	// MaxConcurrency is the largest limit of executions at once.
	MaxConcurrency = 100_000
)

// Defaults that Parse fills in where a document is silent.
const (
	DefaultAttempts           = 3
	DefaultKnowledgeChunks    = 10
	DefaultKnowledgeMaxTokens = 4000
)

// Chain is a parsed document. A chain that Parse returned is valid, its positions are 1..n, and defaults are filled in.
// A chain built by hand can be checked with Validate.
type Chain struct {
	Name        string   // slug: [a-z0-9][a-z0-9-]{0,62}, and no number
	Description string   // free text
	Inputs      []Input  // in the order of the document
	Prompts     []Prompt // in the order of the document, which need not be the order of positions
	Limits      Limits
}

// Input describes one value that an execution takes.
type Input struct {
	Name        string // [A-Za-z0-9_-]+, unique in the chain
	Type        InputType
	Label       string
	Description string
	Placeholder string
	Required    bool
	// Default is the value used when none is given: string, json.Number, bool, []string, or for json any decoded value
	// with numbers as json.Number. Nil means no default.
	Default       any
	Options       []Option // select and multi_select only
	MaxLength     *int     // characters; short_text, long_text and file
	Min, Max      *float64 // number only, inclusive
	MinSelections *int     // multi_select only
	MaxSelections *int     // multi_select only
}

// Option is one choice of a select or multi_select input. A plain string in a document is both value and label.
type Option struct {
	Value string
	Label string // equals Value when the document gives none
}

// InputType says what values an input takes and how a form shows it.
type InputType string

// The types of inputs.
const (
	InputShortText   InputType = "short_text"
	InputLongText    InputType = "long_text"
	InputSelect      InputType = "select"
	InputMultiSelect InputType = "multi_select"
	InputNumber      InputType = "number"
	InputBoolean     InputType = "boolean"
	InputJSON        InputType = "json"
	InputFile        InputType = "file"
)

// Prompt is one entry of a chain: one call of a model.
type Prompt struct {
	Name        string
	Slug        string   // variable name of the output, derived from Name; see Slug
	Position    int      // 1..n; equal positions run in parallel
	Model       string   // provider/model
	System      string   // template of the system message, may be empty
	Content     string   // template of the user message
	Images      []string // names of inputs of type file that the model is shown, in this order
	Mapping     map[string]string
	Knowledge   *Knowledge // nil = no retrieval
	Tools       []string
	Temperature *float64      // 0..2, nil = the model's default
	TopP        *float64      // 0..1, nil = the model's default
	MaxTokens   int           // output tokens, 0 = the model's default
	Timeout     time.Duration // 0 = the executor's default
	Retry       Retry
	Fallback    []string // model ids tried in order after Model
	OnError     OnError
	Output      *Output // nil = free text
	History     History
	Stop        []string // stop sequences
	Seed        *int64
	Cache       *Cache // nil = the model is called every time
}

// Cache lets the answer of a model stand in for later calls that ask exactly the same.
type Cache struct {
	TTL time.Duration // how long an answer is remembered
}

// Knowledge configures the retrieval before a prompt.
type Knowledge struct {
	Repositories []int64
	Search       Search
	MaxChunks    int             // 1..100
	MaxTokens    int             // size of the inserted context
	Threshold    float64         // 0..1, smallest relevance of a chunk
	PerDocument  int             // chunks of one document at most, 1..100; 0 = any number
	Neighbours   int             // chunks before and after each one that are put to it, 0..5
	Filter       json.RawMessage // JSON object that the metadata of documents must contain; nil = none
	Query        string          // template of the retrieval query; empty = the prompt's content
}

// Search names a way of retrieval.
type Search string

// The ways of retrieval.
const (
	SearchVector  Search = "vector"
	SearchKeyword Search = "keyword"
	SearchHybrid  Search = "hybrid"
)

// Retry bounds the tries of a prompt.
type Retry struct {
	Attempts int // all tries, the first included; 1..10
}

// OnError says what a failed prompt does to the chain.
type OnError string

// What a failed prompt does to the chain.
const (
	OnErrorStop     OnError = "stop"
	OnErrorContinue OnError = "continue"
)

// Output asks for structured output.
type Output struct {
	Schema json.RawMessage // JSON Schema 2020-12, compact
}

// HistoryMode says how many earlier turns a prompt sees.
type HistoryMode string

// The modes of history.
const (
	HistoryNone HistoryMode = "none"
	HistoryFull HistoryMode = "full"
	HistoryLast HistoryMode = "last"
)

// History says which earlier turns a prompt sees as conversation.
type History struct {
	Mode HistoryMode
	Last int // number of turns, with HistoryLast only
}

// String is the form that documents use: none, full or last:N.
func (h History) String() string {
	if h.Mode == HistoryLast {
		return "last:" + strconv.Itoa(h.Last)
	}
	return string(h.Mode)
}

// Limits bound the executions of a chain.
type Limits struct {
	Timeout     time.Duration // of one execution; 0 = the executor's default
	MaxCostUSD  string        // of one execution; plain decimal such as 0.5, kept exact; empty = no limit of its own
	MaxTokens   int           // input and output of one execution together; 0 = no limit of its own
	Concurrency int           // executions of the chain at once, on all servers together; 0 = no limit
}

// Ref is a name in a document whose existence only others can check.
type Ref struct {
	Pointer string // where the document names it
	ID      string
}

// RepositoryRef is a knowledge repository that a document names.
type RepositoryRef struct {
	Pointer string
	ID      int64
}

// Models lists every model the chain names, fallbacks included, in the order of the document.
func (c *Chain) Models() []Ref {
	var refs []Ref
	for i := range c.Prompts {
		p := &c.Prompts[i]
		at := promptPointer(i)
		refs = append(refs, Ref{Pointer: at + "/model", ID: p.Model})
		for j, m := range p.Fallback {
			refs = append(refs, Ref{Pointer: at + "/fallback/" + strconv.Itoa(j), ID: m})
		}
	}
	return refs
}

// WithModels answers a copy whose prompts name other models, given by slug. Their fallback models stay.
func (c *Chain) WithModels(models map[string]string) *Chain {
	changed := *c
	changed.Prompts = slices.Clone(c.Prompts)
	for i := range changed.Prompts {
		if m, ok := models[changed.Prompts[i].Slug]; ok {
			changed.Prompts[i].Model = m
		}
	}
	return &changed
}

// Tools lists every tool the chain names, in the order of the document.
func (c *Chain) Tools() []Ref {
	var refs []Ref
	for i := range c.Prompts {
		for j, t := range c.Prompts[i].Tools {
			refs = append(refs, Ref{Pointer: promptPointer(i) + "/tools/" + strconv.Itoa(j), ID: t})
		}
	}
	return refs
}

// Repositories lists every knowledge repository the chain names, in the order of the document.
func (c *Chain) Repositories() []RepositoryRef {
	var refs []RepositoryRef
	for i := range c.Prompts {
		k := c.Prompts[i].Knowledge
		if k == nil {
			continue
		}
		for j, id := range k.Repositories {
			refs = append(refs, RepositoryRef{Pointer: promptPointer(i) + "/knowledge/repositories/" + strconv.Itoa(j), ID: id})
		}
	}
	return refs
}

// Slug makes the variable name of a prompt from its name: lower case, every run of characters other than 0-9a-z becomes
// one hyphen, hyphens at the ends are removed. A name without any such character gives "".
func Slug(name string) string {
	var b strings.Builder
	gap := false
	for _, r := range strings.ToLower(name) {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' {
			if gap && b.Len() > 0 {
				b.WriteByte('-')
			}
			gap = false
			b.WriteRune(r)
			continue
		}
		gap = true
	}
	return b.String()
}

// isNumber tells whether a name has digits only. In a URL or a trigger it would mean the chain with that id.
func isNumber(name string) bool { return strings.Trim(name, "0123456789") == "" }

// promptSlug is Slug with the fallback for names without any letter or digit: prompt-N, N being the 1-based place of the
// prompt in the document.
func promptSlug(name string, index int) string {
	if s := Slug(name); s != "" {
		return s
	}
	return "prompt-" + strconv.Itoa(index+1)
}

func promptPointer(i int) string { return "/prompts/" + strconv.Itoa(i) }
