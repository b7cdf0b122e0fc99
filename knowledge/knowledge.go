// Package knowledge defines how a prompt gets context from repositories of
// documents: what is asked, what comes back, and how passages become the text
// that is placed into a prompt.
package knowledge

import (
	"fmt"
	"strings"
)

// Query asks for passages.
type Query struct {
	Repositories []int64
	Text         string  // the prompt with its variables resolved
	Search       string  // vector, keyword or hybrid
	Limit        int     // at most so many passages
	Threshold    float64 // least score, 0–1
}

// Passage is a retrieved chunk of a document.
type Passage struct {
	ChunkID    int64
	DocumentID int64
	// DocumentVersion changes whenever the text of the document does; 0 where the
	// source of passages has none.
	DocumentVersion int64
	Document        string // name of the document
	Text            string
	Score           float64 // relevance, 0–1
}

// Result is what a query found, best first.
type Result struct {
	Passages []Passage
}

// Context is the text that passages become in a prompt.
type Context struct {
	Text     string
	Passages []Passage // those that fitted, in the order of their citation numbers
	Tokens   int64
	Score    float64 // mean of the passages' scores; 0 without passages
}

// Assemble puts passages, best first, into one text until maxTokens is reached;
// a passage that does not fit as a whole is left out, and so are those behind
// it. Each starts with its citation, [1] for the first. count counts tokens.
func Assemble(passages []Passage, maxTokens int, count func(string) int64) Context {
	var c Context
	var text strings.Builder
	for _, p := range passages {
		entry := fmt.Sprintf("[%d] %s\n%s", len(c.Passages)+1, p.Document, strings.TrimSpace(p.Text))
		tokens := count(entry)
		if maxTokens > 0 && c.Tokens+tokens > int64(maxTokens) {
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
