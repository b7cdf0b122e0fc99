package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// explainedPassage is what the command line reads of a passage.
type explainedPassage struct {
	ChunkID      int64   `json:"chunkId"`
	DocumentName string  `json:"documentName"`
	Headings     string  `json:"headings"`
	Page         *int    `json:"page"`
	Score        float64 `json:"score"`
	Text         string  `json:"text"`
	Reason       string  `json:"reason"`
	Signals      struct {
		Vector, Keyword, Rerank             *float64
		VectorRank, KeywordRank, RerankRank *int
	} `json:"signals"`
}

// explainedSearch is what it reads of a search that was explained.
type explainedSearch struct {
	Results     []explainedPassage `json:"results"`
	Degraded    string             `json:"degraded"`
	Tokens      int64              `json:"tokens"`
	TokenCount  string             `json:"tokenCount"`
	Explanation struct {
		Vector struct {
			Asked   bool
			Queries []struct {
				Model      string
				Dimensions int
				Parts      []string
				Cached     bool
				Error      string
			}
			Scans []struct {
				RepositoryID int64
				Answered     string
			}
		}
		Keyword struct {
			Asked bool
			Terms []explainedTerm
		}
		Matched []struct {
			ChunkID int64
			Words   []explainedTerm
		}
		Removed   []explainedPassage
		TimingsMs struct{ Embed, Search, Rerank, Neighbours, Explain float64 }
	} `json:"explanation"`
}

type explainedTerm struct {
	Word   string
	Weight float64
}

func termLine(terms []explainedTerm) string {
	words := make([]string, len(terms))
	for i, t := range terms {
		words[i] = fmt.Sprintf("%s %.2f", t.Word, t.Weight)
	}
	return strings.Join(words, ", ")
}

// explainSearch prints how a search came to its result.
func (a *app) explainSearch(raw json.RawMessage) error {
	var x explainedSearch
	if err := json.Unmarshal(raw, &x); err != nil {
		return fmt.Errorf("read what was found: %w", err)
	}
	var b strings.Builder
	e := x.Explanation
	if x.Degraded != "" {
		fmt.Fprintf(&b, "%s\n\n", x.Degraded)
	}
	for _, q := range e.Vector.Queries {
		how := "now"
		switch {
		case q.Error != "":
			how = "failed: " + q.Error
		case q.Cached:
			how = "known from an earlier search"
		}
		fmt.Fprintf(&b, "embedded by %s, %d dimensions, in %s (%s)\n", q.Model, q.Dimensions, count(len(q.Parts), "part"), how)
	}
	for _, s := range e.Vector.Scans {
		fmt.Fprintf(&b, "vectors of repository %d: %s\n", s.RepositoryID, s.Answered)
	}
	if e.Keyword.Asked {
		fmt.Fprintf(&b, "words: %s\n", termLine(e.Keyword.Terms))
	}
	fmt.Fprintf(&b, "milliseconds: embed %.1f, search %.1f, rerank %.1f, neighbours %.1f, explain %.1f\n", e.TimingsMs.Embed, e.TimingsMs.Search,
		e.TimingsMs.Rerank, e.TimingsMs.Neighbours, e.TimingsMs.Explain)
	fmt.Fprintf(&b, "%d passages, %d tokens (%s)\n\n", len(x.Results), x.Tokens, x.TokenCount)
	words := make(map[int64][]explainedTerm)
	for _, m := range e.Matched {
		words[m.ChunkID] = m.Words
	}
	if err := a.printf("%s", printable(b.String())); err != nil {
		return err
	}
	t := a.table("SCORE", "VECTOR", "WORDS", "RERANK", "LEFT OUT BY", "PASSAGE", "MATCHED")
	for _, p := range append(x.Results, e.Removed...) {
		where := p.DocumentName
		if p.Page != nil {
			where += fmt.Sprintf(", page %d", *p.Page)
		}
		if p.Headings != "" {
			where += ", " + p.Headings
		}
		s := p.Signals
		t.row(fmt.Sprintf("%.3f", p.Score), scoreAndRank(s.Vector, s.VectorRank), scoreAndRank(s.Keyword, s.KeywordRank), scoreAndRank(s.Rerank, s.RerankRank),
			p.Reason, where, termLine(words[p.ChunkID]))
	}
	return t.flush()
}

// scoreAndRank is a score with its rank.
func scoreAndRank(score *float64, rank *int) string {
	if score == nil || rank == nil {
		return ""
	}
	return fmt.Sprintf("%.3f (%d.)", *score, *rank)
}
