// Package knowledge defines how a prompt gets context from repositories of
// documents: what is asked, what comes back, and how passages become the text
// that is placed into a prompt.
package knowledge

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The ways of searching.
const (
	SearchVector  = "vector"
	SearchKeyword = "keyword"
	SearchHybrid  = "hybrid"
)

// Query asks for passages.
type Query struct {
	Repositories []int64
	Text         string          // the prompt with its variables resolved
	Search       string          // SearchVector, SearchKeyword or SearchHybrid
	Limit        int             // at most so many passages
	Threshold    float64         // least relevance, 0–1; see Passage.Score
	PerDocument  int             // at most so many passages of one document; 0 = any number
	Neighbours   int             // chunks before and after a passage that are put to it
	Filter       json.RawMessage // object that the metadata of documents must contain; nil = none
}

// Passage is a retrieved chunk of a document, with its neighbours where they were
// asked for.
type Passage struct {
	ChunkID         int64
	DocumentID      int64
	DocumentVersion int64 // changes whenever the text of the document does
	RepositoryID    int64
	Document        string // name of the document
	Headings        string
	Page            int // 1-based; 0 in formats without pages
	Text            string
	Score           float64 // that the list is ordered by, 0–1
	Signals         Signals
}

// Signals are what the score of a passage was made of.
type Signals struct {
	VectorRank, KeywordRank   int     // 1-based; 0 = not found that way
	VectorScore, KeywordScore float64 // 0–1
	RerankRank                int     // 1-based, in the order of the hook; 0 = there is none
	RerankScore               float64 // of the hook, 0–1
}

// Relevance answers the better of both scores. Unlike the score of a hybrid search,
// which tells places in a list, it means the same in every search.
func (s Signals) Relevance() float64 { return max(s.VectorScore, s.KeywordScore) }

// Result is what a query found, best first.
type Result struct {
	Passages []Passage
	Degraded string // why one of the two searches was left out, for users; empty when none was
	Left     Left
}

// Left counts what was found and left out, by reason.
type Left struct {
	Threshold int // not relevant enough
	Document  int // too many of the same document
	Limit     int // beyond the limit
}

// Context is the text that passages become in a prompt.
type Context struct {
	Text     string
	Passages []Passage // those that fitted, in the order of their citation numbers
	Cut      []Passage // those that did not
	Tokens   int64
	Score    float64 // mean of the passages' scores; 0 without passages
}

// Assemble puts passages, best first, into one text until maxTokens is reached;
// a passage that does not fit as a whole is left out, and so are those behind
// it. Each starts with its citation, [1] for the first. count counts tokens.
func Assemble(passages []Passage, maxTokens int, count func(string) int64) Context {
	var c Context
	var text strings.Builder
	for i, p := range passages {
		entry := fmt.Sprintf("[%d] %s\n%s", len(c.Passages)+1, p.Document, strings.TrimSpace(p.Text))
		tokens := count(entry)
		if maxTokens > 0 && c.Tokens+tokens > int64(maxTokens) {
			c.Cut = passages[i:]
			break
		}
		if text.Len() > 0 {
			text.WriteString("\n\n")
		}
		text.WriteString(entry)
		c.Tokens += tokens
		c.Score += p.Score
		c.Passages = append(c.Passages, p)
	}
	if n := len(c.Passages); n > 0 {
		c.Score /= float64(n)
	}
	c.Text = text.String()
	return c
}
