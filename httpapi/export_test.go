package httpapi

import (
	"context"
	"encoding/json"
	"time"

	"github.com/chainstream/chainstream/chain"
	"github.com/chainstream/chainstream/events"
)

// What tests see of the inside: the parts that are judged by themselves.

// CheckJSON is the strict reader of bodies.
var CheckJSON = checkJSON

// HeaderJSON writes a list of changes as a header; each text is one change.
func HeaderJSON(details ...string) string {
	list := make([]change, len(details))
	for i, d := range details {
		list[i].Detail = d
	}
	return headerJSON(list)
}

// Preferred chooses among offered media types.
var Preferred = preferred

// Source is the log that a loop reads.
type Source = source

// Sink is what a loop writes to.
type Sink = sink

// RunLoop runs the loop of a stream that leaves out text deltas if asked, and
// answers why it ended.
func RunLoop(ctx context.Context, src Source, out Sink, noDeltas bool, heartbeat time.Duration, draining <-chan struct{}, first []events.Frame) string {
	l := &loop{source: src, first: first, out: out, view: view{noDeltas: noDeltas}, heartbeat: heartbeat, draining: draining}
	return l.run(ctx).String()
}

// ReadCompletion answers the inputs of a chain that the body of a completion has,
// and the metadata that is kept.
func ReadCompletion(body []byte, c *chain.Chain) ([]string, error) {
	r, err := readCompletion(body)
	if err != nil {
		return nil, err
	}
	given, err := inputsOf(c, r)
	if err != nil {
		return nil, err
	}
	checked, err := c.CheckInputs(given)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(checked)
	if err != nil {
		return nil, err
	}
	inputs, err := events.AppendJSONB(nil, raw)
	if err != nil {
		return nil, err
	}
	kept, err := r.keptMetadata()
	if err == nil && kept != nil {
		kept, err = events.AppendJSONB(nil, kept)
	}
	return []string{string(inputs), string(kept)}, err
}

// Route is a method and a path that the server answers.
type Route struct{ Method, Path string }

// Routes answers what the server answers, the files of the web page left out
// but for the page itself.
func Routes(s *Server) ([]Route, error) {
	pages, err := loadPages(s.cfg.Web)
	if err != nil {
		return nil, err
	}
	delete(pages, "/")
	var list []Route
	for _, r := range s.echo.Routes() {
		if _, file := pages[r.Path]; !file {
			list = append(list, Route{r.Method, r.Path})
		}
	}
	return list, nil
}

// HoldUploads lets bytes count as those of documents that are on their way, and answers how
// many there are.
func (s *Server) HoldUploads(bytes int64) int64 { return s.uploads.Add(bytes) }
