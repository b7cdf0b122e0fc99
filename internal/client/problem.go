package client

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Problem is a refusal of the server (RFC 9457).
type Problem struct {
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail"`
	Code   string         `json:"code"`
	Errors []ProblemEntry `json:"errors"`
}

// ProblemEntry is one of several things that are wrong.
type ProblemEntry struct {
	Pointer string `json:"pointer"` // RFC 6901, into what was sent
	Detail  string `json:"detail"`
	Code    string `json:"code"`
	Line    int    `json:"line"` // 0 when unknown
}

// NewProblem reads the answer of a refused request. What is no problem document
// becomes one.
func NewProblem(status int, mediaType string, body []byte) *Problem {
	p := &Problem{}
	if mediaType != "application/problem+json" || json.Unmarshal(body, p) != nil {
		p = &Problem{Title: http.StatusText(status), Detail: "What answers is perhaps no Chainstream server."}
	}
	p.Status = status
	return p
}

// Error is one sentence, and a line for each thing that is wrong.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(p.Title, "."))
	entries := p.Errors
	if len(entries) == 1 && entries[0].Line == 0 && entries[0].Detail == p.Detail { // said once is enough
		if entries[0].Pointer != "" {
			b.WriteString(": " + entries[0].Pointer)
		}
		entries = nil
	}
	if p.Detail != "" && !strings.EqualFold(p.Detail, p.Title) {
		b.WriteString(": " + strings.TrimSuffix(p.Detail, "."))
	}
	fmt.Fprintf(&b, " (%d", p.Status)
	if p.Code != "" {
		b.WriteString(" " + p.Code)
	}
	b.WriteByte(')')
	for _, e := range entries {
		b.WriteString("\n  ")
		if e.Line > 0 {
			fmt.Fprintf(&b, "line %d: ", e.Line)
		}
		if e.Pointer != "" {
			b.WriteString(e.Pointer + ": ")
		}
		b.WriteString(e.Detail)
	}
	return b.String()
}
