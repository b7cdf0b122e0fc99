package httpapi

import (
	"errors"
	"time"

	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// explanationView tells why a search answered what it did.
type explanationView struct {
	Vector     vectorSideView  `json:"vector"`
	Keyword    keywordSideView `json:"keyword"`
	Rerank     *rerankView     `json:"rerank,omitempty"`
	Matched    []matchedView   `json:"matched"`
	Removed    []removedView   `json:"removed"`
	Candidates int             `json:"candidates"` // of each way of searching
	Timings    timingsView     `json:"timingsMs"`
}

type vectorSideView struct {
	Asked   bool             `json:"asked"`
	Queries []queryView      `json:"queries"`
	Scans   []repositoryScan `json:"scans"`
}

// queryView is the query as one model was given it.
type queryView struct {
	Model      string   `json:"model"`
	Dimensions int      `json:"dimensions"`
	Parts      []string `json:"parts"`  // several of a long query: each was searched for
	Cached     bool     `json:"cached"` // its vector was known
	Tokens     int64    `json:"tokens"` // that the model was given now
	Error      string   `json:"error,omitempty"`
}

type repositoryScan struct {
	RepositoryID int64  `json:"repositoryId"`
	Answered     string `json:"answered"` // index or exact
	Index        bool   `json:"index"`    // there is one
}

type keywordSideView struct {
	Asked bool             `json:"asked"`
	Terms []repositoryTerm `json:"terms"` // that were looked for
}

type repositoryTerm struct {
	RepositoryID int64 `json:"repositoryId"`
	termView
}

type termView struct {
	Word   string  `json:"word"`
	Weight float64 `json:"weight"`
}

type rerankView struct {
	Error string `json:"error,omitempty"`
}

// matchedView are the words of a passage that were looked for.
type matchedView struct {
	ChunkID int64      `json:"chunkId"`
	Words   []termView `json:"words"`
}

// removedView is a passage that was found and is not in the results.
type removedView struct {
	passageView
	Reason    string `json:"reason"`
	Truncated bool   `json:"truncated"` // Text is its beginning, and an ellipsis
}

// mostRemovedText bounds the text of a passage that was left out, in characters: there
// may be more than a thousand of them.
const mostRemovedText = 600

func removedViewOf(r knowledge.Removed) removedView {
	v := removedView{passageView: passageViewOf(r.Passage), Reason: r.Reason}
	characters := 0
	for at := range v.Text {
		if characters == mostRemovedText {
			v.Text, v.Truncated = v.Text[:at]+"…", true
			break
		}
		characters++
	}
	return v
}

type timingsView struct {
	Embed      float64 `json:"embed"`
	Search     float64 `json:"search"`
	Rerank     float64 `json:"rerank"`
	Neighbours float64 `json:"neighbours"`
	Explain    float64 `json:"explain"`
}

// explanationViewOf writes an explanation; cut are the passages that had no room.
func explanationViewOf(x *knowledge.Explanation, cut []knowledge.Passage) *explanationView {
	v := &explanationView{
		Vector:  vectorSideView{Asked: x.Mode != knowledge.SearchKeyword, Queries: []queryView{}, Scans: []repositoryScan{}},
		Keyword: keywordSideView{Asked: x.Mode != knowledge.SearchVector, Terms: []repositoryTerm{}},
		Matched: []matchedView{}, Removed: []removedView{}, Candidates: x.Candidates,
		Timings: timingsView{
			milliseconds(x.Timings.Embed), milliseconds(x.Timings.Search), milliseconds(x.Timings.Rerank),
			milliseconds(x.Timings.Neighbours), milliseconds(x.Timings.Explain),
		},
	}
	for _, q := range x.Queries {
		v.Vector.Queries = append(v.Vector.Queries, queryView{
			Model: q.Space.Model, Dimensions: q.Space.Dimensions, Parts: q.Parts, Cached: q.Cached, Tokens: q.Tokens, Error: safeError(q.Err),
		})
	}
	for _, i := range x.Indexes {
		scan := repositoryScan{RepositoryID: i.RepositoryID, Answered: "exact", Index: i.Exists}
		if i.Used {
			scan.Answered = "index"
		}
		v.Vector.Scans = append(v.Vector.Scans, scan)
	}
	for _, id := range x.Repositories {
		for _, t := range x.Terms[id] {
			v.Keyword.Terms = append(v.Keyword.Terms, repositoryTerm{id, termView(t)})
		}
	}
	if x.RerankErr != nil {
		v.Rerank = &rerankView{Error: safeError(x.RerankErr)}
	}
	for _, p := range cut {
		x.Removed = append(x.Removed, knowledge.Removed{Passage: p, Reason: knowledge.RemovedTokens})
	}
	matched := func(p knowledge.Passage) {
		words := make([]termView, 0, len(x.Matched[p.ChunkID]))
		for _, t := range x.Matched[p.ChunkID] {
			words = append(words, termView(t))
		}
		v.Matched = append(v.Matched, matchedView{p.ChunkID, words})
	}
	for _, p := range x.Result.Passages {
		matched(p)
	}
	for _, r := range x.Removed {
		v.Removed = append(v.Removed, removedViewOf(r))
		if r.Reason != knowledge.RemovedTokens { // those are among the passages
			matched(r.Passage)
		}
	}
	return v
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// safeError is what may be shown of an error; "" for none.
func safeError(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*llm.Error](err); ok {
		return e.Message
	}
	return llm.Redact(err.Error())
}
